"""What docs/twilio.md says is so."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
import yaml

from appliance.cli.check import trunk_mistakes
from appliance.config import Settings, load_settings
from appliance.config.trunks import SipTrunk
from appliance.dialplan.match import Match
from appliance.signalling.builtin_carriers import carrier_registry
from appliance.signalling.twilio_options import TwilioOptions
from appliance.signalling.twilio_status import final_status, refusal
from tests.certificates import Authority

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "twilio.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below the line that begins with ``heading``."""
    table = PAGE.partition(f"\n{heading}")[2].partition("\n\n")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line]


def load(text: str, folder: Path, secret: str) -> Settings:
    path = folder / "appliance.yaml"
    path.write_text(text)
    (folder / "secrets.yaml").write_text(f"{secret}: x\n")
    return load_settings(path, [], environ={})


def test_the_trunk_is_one(tmp_path: Path) -> None:
    found = re.search(r"   ```yaml\n(.*?)   ```", PAGE, re.DOTALL)
    assert found is not None
    settings = load(re.sub(r"(?m)^   ", "", found[1]), tmp_path, "twilio_auth_token")
    assert trunk_mistakes(settings, carrier_registry()) == []


def test_the_readme_s_trunk_is_one(tmp_path: Path) -> None:
    found = re.search(r"(?m)^  twilio: .*$", (DOCS.parent / "README.md").read_text())
    assert found is not None
    settings = load(f"trunks:\n{found[0]}\n", tmp_path, "twilio")
    assert trunk_mistakes(settings, carrier_registry()) == []


def test_a_line_can_match_the_account() -> None:
    found = re.search(r"  ```yaml\n(  match:.*?)  ```", PAGE, re.DOTALL)
    assert found is not None
    match = Match.model_validate(yaml.safe_load(found[1])["match"])
    assert set(match.headers) == {"X-Twilio-AccountSid"}


def test_only_the_path_of_the_streams_goes_to_media() -> None:
    assert "location = /twilio/media {" in PAGE and "handle /twilio/media {" in PAGE


def test_the_example_by_sip_is_one(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("voice.example.com")
    text = (DOCS / "examples" / "twilio-sip.yaml").read_text()
    text = text.replace("/etc/appliance/tls/fullchain.pem", str(pair.cert))
    text = text.replace("/etc/appliance/tls/privkey.pem", str(pair.key))
    settings = load(text, tmp_path, "twilio_sip_password")
    trunk = settings.trunks["twilio"]
    assert isinstance(trunk, SipTrunk)
    assert (trunk.srtp, trunk.transfer) == ("required", "auto")
    assert all(";transport=tls" in proxy for proxy in trunk.proxy)
    assert len(trunk.allow) == 8 and all(network.prefixlen == 30 for network in trunk.allow)
    assert ipaddress.ip_address("54.172.60.1") in trunk.allow[0]
    assert {"X-Twilio-CallSid", "X-Twilio-AccountSid", "X-Twilio-VerStat"} <= set(trunk.headers_in)


def test_every_key_is_described() -> None:
    described = {cells[0].strip("`"): cells[1:] for cells in rows("| key | default | meaning |")}
    assert set(described) == set(TwilioOptions.model_fields)
    for name, field in TwilioOptions.model_fields.items():
        assert field.description
        assert field.is_required() == (described[name][0] == "required")


@pytest.mark.parametrize("cells", rows("| CallStatus | with | status |"), ids="-".join)
def test_what_the_end_of_a_call_becomes(cells: list[str]) -> None:
    word, given, status = cells
    told = {"CallStatus": word.strip("`")}
    if given.startswith("ErrorCode"):
        for code in re.findall(r"\d+", given):
            assert final_status({**told, "ErrorCode": code}) == int(status)
    elif given.startswith("a SipResponseCode"):
        for code in ("400", "404", "603"):
            assert final_status({**told, "SipResponseCode": code}) == int(code)
        assert final_status({**told, "SipResponseCode": "183"}) == 503
    else:
        assert final_status(told, answered=given != "never answered") == int(status)


@pytest.mark.parametrize("cells", rows("| error | status | what to do |"), ids=lambda cells: cells[0])
def test_what_a_refusal_of_the_api_becomes(cells: list[str]) -> None:
    for code in re.findall(r"\d+", cells[0]):
        if code != "20404":  # which is the account's only where a call is placed
            assert refusal(int(code), 400, "no").status == int(cells[1])


def test_the_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", PAGE)
    assert links and [link for link in links if not (DOCS / link).exists()] == []
