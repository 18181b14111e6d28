"""The tables of ``docs/campaign-rules.md``: ``python -m appliance.campaigns.rules_reference`` writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from appliance.campaigns.mix import Lengths, Mix, Outcome
from appliance.campaigns.outcome import MEANINGS, SIP_DISPOSITIONS, TONE_DISPOSITIONS
from appliance.config.reference import with_keys

TARGET: Final = Path(__file__).parents[2] / "docs" / "campaign-rules.md"

_BEGIN: Final = (
    "<!-- Keys: made by `python -m appliance.campaigns.rules_reference`; edit appliance/campaigns/mix.py. -->"
)
_MODELS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("A mix", Mix),
    ("One of `outcomes`", Outcome),
    ("`ring_s`, `talk_s`", Lengths),
)


def _dispositions() -> str:
    rows = ["| disposition | meaning |", "| --- | --- |"]
    return "\n".join(rows + [f"| `{name.value}` | {meaning} |" for name, meaning in MEANINGS.items()])


def _causes() -> str:
    def told(causes: Iterable[object]) -> str:
        return ", ".join(str(cause) for cause in causes)

    rows = ["| disposition | SIP status | tones before an answer |", "| --- | --- | --- |"]
    for name in dict.fromkeys((*SIP_DISPOSITIONS.values(), *TONE_DISPOSITIONS.values())):
        codes = {code: name for code, of in SIP_DISPOSITIONS.items() if of is name}
        tones = {f"`{tone}`": name for tone, of in TONE_DISPOSITIONS.items() if of is name}
        rows.append(f"| `{name.value}` | {told(codes) or 'every other'} | {told(tones)} |")
    return "\n".join(rows)


_TABLES: Final[Mapping[str, Callable[[], str]]] = {"dispositions": _dispositions, "causes": _causes}


def updated(page: str) -> str:
    """``page`` with its tables made anew."""
    for name, made in _TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{made()}\n\n{end}{rest.partition(end)[2]}"
    return with_keys(page, _BEGIN, _MODELS)


if __name__ == "__main__":
    TARGET.write_text(updated(TARGET.read_text(encoding="utf-8")), encoding="utf-8")
