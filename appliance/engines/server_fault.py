"""What went wrong at a server that an engine asks over the network."""

from __future__ import annotations

from appliance.errors import EngineError


class ServerFault(EngineError):
    """One attempt at one server has failed; the message says how to fix it.

    Attributes:
        again: the same server may manage if it is asked a second time.
        wait_s: how long it wants to be left alone before that; None where it does not say.
        blame: it says something about the server, not only about this request.
    """

    def __init__(self, message: str, *, again: bool = False, wait_s: float | None = None, blame: bool = True) -> None:
        self.again = again
        self.wait_s = wait_s
        self.blame = blame
        super().__init__(message, retryable=False)
