"""What plugins are given of a call that is over: its recording, and its record."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from appliance.calls.hook_calls import record_told
from appliance.calls.services import CallLog, Records
from appliance.conversation.hooked import HooksOfCall
from appliance.errors import StoreError
from appliance.events import RecordingKept

logger = logging.getLogger(__name__)

_STORED_TIMEOUT_S: Final = 30.0


async def keep_recording(hooks: HooksOfCall, log: CallLog, call_id: str, path: str) -> None:
    """Let a plugin take the recording at ``path`` elsewhere, and put on record where it is then."""
    if hooks.wanted("keep_recording"):
        kept = await hooks.keep_recording(path)
        if kept != path:
            log.say(RecordingKept(call_id=call_id, path=kept))


async def tell_record(hooks: HooksOfCall, records: Records | None, call_id: str) -> None:
    """Let plugins have the call's record, once it is complete."""
    if records is None or not hooks.wanted("record_stored"):
        return
    try:
        async with asyncio.timeout(_STORED_TIMEOUT_S):
            record = await records.stored(call_id)
    except (StoreError, TimeoutError) as error:
        logger.error("call %s: plugins are not told of its record: %s", call_id, error or "it is not stored")
        return
    if record is not None:
        hooks.record_stored(record_told(record))
