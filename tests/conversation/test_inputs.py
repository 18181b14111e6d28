"""What is to be replied to: its order, its bound, and the turn that it begins."""

import asyncio

from appliance.conversation.brain import Heard, Key, KeysEnded, Opening, Silence
from appliance.conversation.inputs import Inputs, Pending
from appliance.conversation.turn_log import TurnLog
from appliance.events import InputBy


async def test_inputs_come_in_order_and_the_oldest_of_too_many_are_forgotten():
    inputs = Inputs(lambda: 7.0)
    for digit in "0123456789" * 7:
        inputs.put(Key(digit))
    first = await inputs.next()
    assert (first.value, first.at) == (Key("6"), 7.0)
    left = [(await inputs.next()).value.digit for _ in range(63)]
    assert "".join(left) == ("0123456789" * 7)[7:]
    assert not inputs


async def test_another_is_waited_for_until_the_reply_is_done():
    inputs = Inputs(lambda: 0.0)
    inputs.put(Opening())
    reply = asyncio.create_task(asyncio.Event().wait())
    waiting = asyncio.create_task(inputs.another(unless=reply))
    await asyncio.sleep(0)
    assert not waiting.done(), "what was there before is not another"
    inputs.put(Silence())
    await asyncio.wait_for(waiting, 5)
    waiting = asyncio.create_task(inputs.another(unless=reply))
    reply.cancel()
    await asyncio.wait_for(waiting, 5)


def test_a_turn_knows_what_began_it():
    spoken, pressed, silent = TurnLog(1), TurnLog(2), TurnLog(3)
    Pending(Heard("four please", 0.9, True)).begins(spoken)
    Pending(Key("4"), at=12.0).begins(pressed)
    Pending(Silence()).begins(silent)
    assert (spoken.by, spoken.caller_text, spoken.confidence) == (InputBy.VOICE, "four please", 0.9)
    assert (pressed.by, pressed.caller_text, pressed.speech_start_at) == (InputBy.KEY, "4", 12.0)
    assert silent.by is InputBy.NONE


def test_keys_of_one_number_are_one_turn():
    turn = TurnLog(1)
    Pending(Key("4"), at=1.0).begins(turn)
    assert Pending(Key("2"), at=2.0).continues(turn, 2.5)
    assert Pending(KeysEnded(), at=5.0).continues(turn, 5.0)
    assert (turn.caller_text, turn.speech_end_at, turn.decided_at) == ("42", 2.0, 5.0)
    assert not Pending(Silence()).continues(turn, 9.0)
    assert not Pending(Key("1")).continues(TurnLog(2), 9.0)
