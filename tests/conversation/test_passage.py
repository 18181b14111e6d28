"""Which clauses of a reply share an utterance."""

from appliance.conversation.passage import Passage
from appliance.conversation.utterance import Utterance


class _Speaker:
    def __init__(self):
        self.begun: list[Utterance] = []
        self.told: list[tuple[int, object]] = []

    def begin(self, interruptible, filler):
        self.begun.append(Utterance(len(self.begun), interruptible=interruptible, filler=filler))
        return self.begun[-1]

    def add(self, utterance, clause):
        self.told.append((utterance.number, clause))

    follow = add

    def finish(self, utterance):
        utterance.complete = True


def _passage(draft=None):
    speaker = _Speaker()
    if draft is not None:
        speaker.begun.append(draft)
    return speaker, Passage(speaker, speaker.begin, draft)


def test_clauses_share_an_utterance_until_it_may_be_interrupted_otherwise():
    speaker, passage = _passage()
    for clause, interruptible in (("This is a machine.", False), ("Hello,", True), ("how are you?", True)):
        passage.say(clause, interruptible=interruptible, filler=False)
    passage.close()
    assert speaker.told == [(0, "This is a machine."), (1, "Hello,"), (1, "how are you?")]
    assert all(utterance.complete for utterance in speaker.begun) and passage.open is speaker.begun[1]


def test_a_filler_is_an_utterance_of_its_own():
    speaker, passage = _passage()
    passage.say("Let me see.", interruptible=True, filler=True)
    assert speaker.begun[0].complete and passage.open is None
    passage.say("Two are left.", interruptible=True, filler=False)
    passage.say("One moment.", interruptible=True, filler=True)
    assert [number for number, _ in speaker.told] == [0, 1, 2]


def test_the_speaker_is_not_told_the_first_clause_of_a_draft_again():
    speaker, passage = _passage(Utterance(0))
    assert passage.say("Good morning.", interruptible=True, filler=False) is speaker.begun[0]
    passage.say("How are you?", interruptible=True, filler=False)
    assert speaker.told == [(0, "How are you?")]


def test_speech_goes_on_in_what_may_be_interrupted_only():
    speaker, passage = _passage()
    passage.say("This is a machine.", interruptible=False, filler=False)
    passage.follow("speech")
    passage.say("And words.", interruptible=True, filler=False)
    assert speaker.told == [(0, "This is a machine."), (1, "speech"), (1, "And words.")]
    passage.finish()
    assert passage.open is None
