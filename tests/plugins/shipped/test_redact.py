"""The plugin ``redact``: what is taken out of texts, and that the record of a call is without it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.testing import uses
from plugins import redact

CARD = "4111 1111 1111 1111"
SPOKEN = "four one one one one one one one one one one one one one one one"


def values(**more: Any) -> redact.Values:
    return redact.Values(**more)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"my card is {CARD}, thanks", "my card is [card], thanks"),
        ("4111-1111-1111-1111 and 5500000000000004", "[card] and [card]"),
        ("it is 4111 1111 1111 1112", "it is 4111 1111 1111 1112"),
        ("number 1 4111111111111111", "number [card]"),
        (f"it is {SPOKEN} yes", "it is [card] yes"),
        ("four triple one, double one double one triple one triple one double one", "[card]"),
        ("one two three four", "one two three four"),
        ("write to Ann.Lee+x@mail.example.com now", "write to [email] now"),
        ("it is ann dot lee at example dot com", "it is [email]"),
        ("we met at noon", "we met at noon"),
        ("call +49 30 1234567 today", "call [phone] today"),
        ("call 030 1234567 today", "call 030 1234567 today"),
        ('{"card":4111111111111111,"n":3,"who":"ann@example.com"}', '{"card":"[card]","n":3,"who":"[email]"}'),
        ("", ""),
    ],
)
def test_what_is_taken_out(text: str, kept: str) -> None:
    assert redact.redacted(text, values()) == kept


def test_what_an_operator_may_choose() -> None:
    assert redact.redacted("call 030 1234567", values(region="DE")) == "call [phone]"
    assert redact.redacted(CARD, values(keep_last=4)) == "[card ..1111]"
    assert redact.redacted(f"{CARD} a@b.de", values(cards=False, phones=False)) == f"{CARD} [email]"
    with pytest.raises(ValueError, match="two letters"):
        values(region="Germany")


@pytest.mark.parametrize("text", ["1" * 20_000, "1 " * 10_000, "a@" * 10_000, "one " * 10_000, "a." * 10_000 + "@"])
def test_no_text_takes_long(text: str) -> None:
    """Each of these would take minutes with an expression that goes back; the hook has 500 ms."""
    redact.redacted(text, values())


async def test_the_record_of_a_call_is_without_them(scripted_call: Any) -> None:
    call = await scripted_call(
        plugins=["redact"],
        model={"card": [uses("take_message", message=f"Pays with {CARD}.", name="Ann"), f"Noted {CARD}."]},
    )
    await call.says(f"my card is {CARD}")
    await call.hangs_up()
    assert CARD not in json.dumps(call.record)
    assert call.record["turns"][1]["caller_text"] == "my card is [card]"
    assert call.slots["message"] == "Pays with [card]."
    assert call.tool("take_message").arguments["message"] == "Pays with [card]."
    assert call.heard("[card]")
