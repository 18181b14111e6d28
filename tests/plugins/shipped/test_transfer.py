"""The plugin ``transfer`` in scripted calls."""

from __future__ import annotations

from typing import Any

from appliance.testing import uses

LINE = {
    "transfers": {
        "sales": {"to": "+49301234", "kind": "attended", "announce": "From ${caller.number}. ${slots.summary}"},
        "lost": {"to": "+49305678", "kind": "blind"},
    },
    "tools": ["put_through"],
}
VALUES = {"targets": {"sales": "orders and prices", "lost": "lost property"}}


async def test_the_human_is_told_what_the_call_is_about(scripted_call: Any) -> None:
    call = await scripted_call(
        LINE,
        plugins={"transfer": VALUES},
        model={"sales": uses("put_through", to="sales", summary="Ann wants ten hats.")},
    )
    await call.says("sales please")
    await call.ends()
    (transfer,) = call.transfers
    assert (transfer.to, transfer.attended) == ("+49301234", True)
    assert transfer.announce == "From +15551234567. Ann wants ten hats."
    assert call.slots["summary"] == "Ann wants ten hats."
    assert set(call.offered) == {"put_through", "hang_up"}


async def test_the_caller_is_asked_first_where_the_operator_wants_it(scripted_call: Any) -> None:
    call = await scripted_call(
        LINE,
        plugins={"transfer": {**VALUES, "summary": "off", "confirm": "Shall I put you through to {to}?"}},
        model={"lost": [uses("put_through", to="lost"), "As you like."]},
    )
    await call.says("I lost my umbrella, call lost property")
    assert call.heard("Shall I put you through to lost?")
    await call.says("no")
    assert call.transfers == []
    await call.hangs_up()


async def test_nobody_is_put_through_for_ever(scripted_call: Any) -> None:
    call = await scripted_call(
        LINE,
        plugins={"transfer": {**VALUES, "summary": "optional", "most": 1}},
        model={
            "lost": [uses("put_through", to="lost"), "Nobody there."],
            "again": [uses("put_through", to="lost"), "No."],
        },
    )
    call.nobody_answers()
    await call.says("lost property")
    assert call.heard("Nobody there.")
    await call.says("try again")
    assert len(call.transfers) == 1
    assert "put through 1 times already" in call.prompts[-1]
