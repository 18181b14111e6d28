"""When a call's engines have failed often enough."""

from appliance.conversation.brain import Heard, Key
from appliance.conversation.setbacks import Setbacks

UNHEARD = Heard("", None, False)


def test_without_another_way_two_replies_that_fail_in_a_row_are_enough() -> None:
    setbacks = Setbacks(None)
    assert not setbacks.another_way
    assert not setbacks.failed()
    setbacks.answered()
    assert not setbacks.failed()
    assert setbacks.failed()


def test_a_line_says_how_many_are_enough() -> None:
    setbacks = Setbacks(3)
    assert [setbacks.failed() for _ in range(3)] == [False, False, True]
    setbacks.begin_again()
    assert not setbacks.failed()


def test_callers_who_are_not_understood_turn_after_turn_are_a_setback_of_the_line() -> None:
    setbacks = Setbacks(2)
    assert setbacks.deafness(UNHEARD, "no recogniser") == ""
    assert setbacks.deafness(Heard("yes", 0.9, True), "") == ""
    assert setbacks.deafness(UNHEARD, "no recogniser") == ""
    assert setbacks.deafness(Key("1"), "no recogniser") == ""
    assert setbacks.deafness(UNHEARD, "no recogniser") == "no recogniser"


def test_without_another_way_they_are_asked_again_for_as_long_as_they_stay() -> None:
    setbacks = Setbacks(None)
    assert [setbacks.deafness(UNHEARD, "no recogniser") for _ in range(4)] == [""] * 4
