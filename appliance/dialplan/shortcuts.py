"""The schema of a line's ``keys``: what telephone keys do at any time. PURE."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from appliance.config.validation import Section, fault
from appliance.dialplan.steps import TransferTarget, target

_KINDS = ("transfer", "goto", "hang_up")


class Shortcut(Section):
    """What a key does: one of `transfer`, `goto` and `hang_up`, or only `say`."""

    say: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] = Field(
        default="",
        description="What is said. By itself, the call then goes on where it was; before a `transfer` the caller "
        "cannot cut it short.",
    )
    transfer: Annotated[TransferTarget, BeforeValidator(target)] | None = Field(
        default=None, description="Who to hand the caller on to: a number, or a mapping as in a `transfer` step."
    )
    failed: str | None = Field(
        default=None,
        description="With `transfer`: the step of `flow` to go on with when nobody could be reached; without one, the "
        "caller is told so, and the call goes on where it was.",
    )
    goto: str | None = Field(
        default=None,
        description="The step of `flow` to go on with. With `agent: llm` the model does not get the caller back.",
    )
    hang_up: Annotated[str, StringConstraints(max_length=4000, strip_whitespace=True)] | None = Field(
        default=None, description='Ends the call with this farewell; "" for none.'
    )

    @model_validator(mode="after")
    def _does_one_thing(self) -> Shortcut:
        found = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if not found and not self.say:
            raise fault("the key does nothing", "give it one of say, transfer, goto, hang_up")
        if len(found) > 1:
            raise fault(f"the key has both {found[0]} and {found[1]}", "keep one of them")
        if self.say and self.hang_up is not None:
            raise fault("the key has both say and hang_up", "write what is said as hang_up")
        if self.failed is not None and self.transfer is None:
            raise fault("failed has no effect without transfer", "remove it, or hand the caller on")
        return self
