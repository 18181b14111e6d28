"""Speech for a caller, made by espeak-ng in a process of its own.

:func:`speak` is what others call; it never loads the library. ``python -m appliance.cli.say`` is the other side: it
reads ``{"voice", "rate", "texts"}`` as JSON and writes, for each text, a 32-bit length and that many bytes of PCM.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from appliance.errors import ApplianceError, EngineError

CALLER_VOICE: Final = "en-us+f2"
"""Another voice than the one that the agent speaks with."""
_LENGTH: Final = struct.Struct("<I")
_TIMEOUT_S: Final = 30.0


async def speak(texts: Sequence[str], voice: str = CALLER_VOICE, rate: float = 1.0) -> list[NDArray[np.int16]]:
    """Each text as int16 PCM at 8 kHz.

    Raises:
        ApplianceError: it cannot be spoken; the message says why.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance.cli.say",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    order = json.dumps({"voice": voice, "rate": rate, "texts": list(texts)}).encode()
    try:
        spoken, complaint = await asyncio.wait_for(process.communicate(order), _TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ApplianceError(f"the speech was not made within {_TIMEOUT_S:.0f} s") from None
    if process.returncode != 0:
        reason = complaint.decode(errors="replace").strip().splitlines() or [f"exit status {process.returncode}"]
        raise ApplianceError(f"the text cannot be spoken: {reason[-1]}")
    return _unpack(spoken)


def _unpack(spoken: bytes) -> list[NDArray[np.int16]]:
    found: list[NDArray[np.int16]] = []
    at = 0
    while at < len(spoken):
        (size,) = _LENGTH.unpack_from(spoken, at)
        at += _LENGTH.size
        found.append(np.frombuffer(spoken, "<i2", size // 2, at).astype(np.int16))
        at += size
    return found


def main() -> int:
    """Read one order from standard input and write the speech to standard output."""
    from appliance.engines.espeak_tts import EspeakSynthesiser

    order = json.load(sys.stdin)
    try:
        synthesiser = EspeakSynthesiser()
        for text in order["texts"]:
            pieces = list(synthesiser.synthesise(text, voice=order["voice"], rate=order["rate"]))
            pcm = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
            data = pcm.astype("<i2").tobytes()
            sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
