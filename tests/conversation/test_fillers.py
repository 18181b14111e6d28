import pytest

from appliance.conversation.fillers import ends_in_filler


@pytest.mark.parametrize("text", ["I would like um", "Send it to the", "and then...", "my number is", "Uh,"])
def test_breaks_off(text):
    assert ends_in_filler(text)


@pytest.mark.parametrize("text", ["", "yes please", "five five one", "what is that for?", "thank you."])
def test_is_complete(text):
    assert not ends_in_filler(text)
