"""What the agent says in the turn under way: begun, paused, gone on with, bridged and waited for."""

from __future__ import annotations

import asyncio

from appliance.conversation.floor import Floor
from appliance.conversation.speaker import Speaker
from appliance.conversation.turns import TurnMachine
from appliance.conversation.utterance import Utterance


class Mouth:
    """Says things through the speaker, notes them in the turn, and has the turn machine know of them.

    Args:
        floor: has the turn.
        barge_in: whether the caller may interrupt at all.
    """

    def __init__(self, floor: Floor, *, barge_in: bool) -> None:
        self._floor = floor
        self._barge_in = barge_in
        self._speaker: Speaker | None = None
        self._machine: TurnMachine | None = None
        self._said = asyncio.Event()
        self._dry_at: int | None = None

    def attach(self, speaker: Speaker, machine: TurnMachine) -> None:
        """Before anything is said."""
        self._speaker, self._machine = speaker, machine

    def detach(self) -> None:
        """Nothing is said any more."""
        self._speaker = self._machine = None

    @property
    def talking(self) -> bool:
        return self._speaker is not None and self._speaker.speaking

    @property
    def interruptible(self) -> bool:
        bars = self._floor.handing_on or not self._barge_in
        return not bars and self._speaker is not None and self._speaker.interruptible

    @property
    def barred(self) -> bool:
        """Whether something is being said that the caller may not talk over."""
        return self.talking and not self.interruptible

    @property
    def only_bridging(self) -> bool:
        """Whether nothing is being said but what bridges the wait for a reply."""
        return all(utterance.filler or utterance.over for utterance in self._floor.turn.utterances)

    # --- saying ---------------------------------------------------------------------------------------------------

    def begin(self, interruptible: bool, filler: bool = False) -> Utterance:
        """Begin an utterance of this turn."""
        assert self._speaker is not None
        utterance = self._speaker.begin(interruptible=interruptible, filler=filler)
        self.begun(utterance)
        return utterance

    def begun(self, utterance: Utterance) -> None:
        """It is said from now on."""
        self._said.clear()
        self._floor.turn.utterances.append(utterance)
        self.changed()

    def changed(self) -> None:
        """What is said now, and whether it may be interrupted, has changed. What may not be does not stay paused."""
        assert self._speaker is not None and self._machine is not None
        self._machine.agent_speaking(True, interruptible=self.interruptible)
        if self._speaker.paused and not self.interruptible:
            self.go_on()

    def meant(self, utterance: Utterance, clause: str) -> None:
        """The speaker has been told to say ``clause``."""
        if not utterance.filler:
            self._floor.turn.meant.append(clause.strip())
        self._floor.tell()

    async def say(self, text: str, *, interruptible: bool = True) -> None:
        """Say it by itself, until it has been said or cut short."""
        assert self._speaker is not None
        utterance = self.begin(interruptible)
        self._speaker.add(utterance, text)
        self.meant(utterance, text)
        self._speaker.finish(utterance)
        await self.until_said()

    async def until_said(self) -> None:
        while self.talking:
            await self._said.wait()
            self._said.clear()

    def over(self) -> bool:
        """Media has played an utterance to its end; whether it was the last."""
        assert self._speaker is not None and self._machine is not None
        if self._speaker.speaking:
            self.changed()
            return False
        self._machine.agent_speaking(False)
        self._said.set()
        return True

    # --- pauses and stops -----------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Fall silent where the caller may interrupt."""
        if self._speaker is not None and self.talking and self.interruptible:
            self._speaker.pause()
            self._floor.tell()

    def go_on(self) -> bool:
        """Go on from where the agent fell silent; whether it had."""
        if self._speaker is None or not self._speaker.paused:
            return False
        self._floor.turn.pauses += 1
        self._speaker.resume()
        self._floor.tell()
        return True

    async def stop(self) -> None:
        """Say nothing more of it; returns when it is known how much was heard."""
        speaker, machine = self._speaker, self._machine
        assert speaker is not None and machine is not None
        await speaker.stop()  # the conversation may be over before it is
        machine.agent_speaking(False)
        self._said.set()

    # --- bridging waits -------------------------------------------------------------------------------------------

    def has_run_dry(self) -> bool:
        """Whether the same speech has run dry as when this was asked before."""
        assert self._speaker is not None
        dry_at, self._dry_at = self._dry_at, self._speaker.dry_at
        return dry_at is not None and dry_at == self._dry_at

    def bridge(self, phrase: str) -> None:
        """Say it in place of what is still to come, which is finished here."""
        assert self._speaker is not None
        if self.talking:
            for spoken in self._floor.turn.utterances:
                self._speaker.finish(spoken)
        utterance = self.begin(True, filler=True)
        self._speaker.add(utterance, phrase)
        self._speaker.finish(utterance)
