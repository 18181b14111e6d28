"""What is kept of callers by their number: notes from one call to the next, and who is not to be called again."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import phonenumbers
from sqlalchemy import Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.clock import Clock
from appliance.errors import StoreError
from appliance.store.attempts import Attempts
from appliance.store.models import Base

_memory: Table = Base.metadata.tables["caller_memory"]
_do_not_call: Table = Base.metadata.tables["do_not_call"]

_SEPARATORS: Final = re.compile(r"[\s()./-]")
_NUMBER: Final = re.compile(r"\+?\d{2,32}")
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


def plain_number(number: str) -> str:
    """``number`` as it is kept: digits, with a plus in front of a country code; "" where it is no number."""
    bare = _SEPARATORS.sub("", number)
    bare = f"+{bare[2:]}" if bare.startswith("00") else bare
    return bare if _NUMBER.fullmatch(bare) else ""


@lru_cache(maxsize=8192)
def spellings(number: str) -> tuple[str, ...]:
    """How a list may have ``number``: as it is kept, and, of a whole one, as its own country writes it. Carriers and
    exchanges tell callers' numbers without a plus, and without the country code."""
    known = plain_number(number)
    if not known.startswith("+"):
        return (known,)
    try:
        parsed = phonenumbers.parse(known, None)
    except phonenumbers.NumberParseException:
        return known, known[1:]
    national = phonenumbers.national_significant_number(parsed)
    at_home = plain_number(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.NATIONAL))
    return tuple(dict.fromkeys(one for one in (known, known[1:], national, at_home) if one))


class CallerStore:
    """Reads and writes at once, with a few attempts: a locked database must not lose a caller's wish.

    Args:
        engine: of the call record; stays with whoever made it.
        clock: for expiry.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._attempts = Attempts(engine, "what is kept of callers")
        self._clock = clock
        self._insert: Any = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    async def recall(self, number: str, line: str) -> str:
        """What is remembered of the caller on that line; "" for nothing.

        Raises:
            StoreError: it cannot be read.
        """
        query = select(_memory.c.notes).where(
            _memory.c.number == plain_number(number),
            _memory.c.line == line,
            _memory.c.expires_at > self._clock.utc(),
        )

        async def read(connection: AsyncConnection) -> str:
            return str((await connection.execute(query)).scalar() or "")

        return await self._attempts.run(read)

    async def keep(self, number: str, line: str, notes: str, *, days: int) -> None:
        """Remember ``notes`` in place of what there was, for ``days``; "" forgets.

        Raises:
            StoreError: it cannot be written.
        """
        known = plain_number(number)
        if not known:
            return
        now = self._clock.utc()
        if not notes:
            await self._attempts.execute(delete(_memory).where(_memory.c.number == known, _memory.c.line == line))
            return
        row = {
            "number": known,
            "line": line,
            "notes": _UNSTORABLE.sub("\ufffd", notes),
            "updated_at": now,
            "expires_at": now + timedelta(days=days),
        }
        statement = self._insert(_memory).values(row)
        changed = {name: statement.excluded[name] for name in ("notes", "updated_at", "expires_at")}
        await self._attempts.execute(statement.on_conflict_do_update(index_elements=["number", "line"], set_=changed))

    async def forget(self, number: str) -> int:
        """Erase what is remembered of a caller, on all lines; how many notes there were.

        Raises:
            StoreError: it cannot be written.
        """
        return await self._attempts.execute(delete(_memory).where(_memory.c.number == plain_number(number)))

    async def forget_expired(self) -> int:
        """Erase what has been kept for its days."""
        return await self._attempts.execute(delete(_memory).where(_memory.c.expires_at <= self._clock.utc()))

    async def refuse_calls(self, number: str, *, reason: str, call_id: str, line: str) -> None:
        """Never have ``number`` called again; the first wish stands.

        Raises:
            StoreError: it is no number, or it cannot be written.
        """
        known = plain_number(number)
        if not known:
            raise StoreError(f"{number!r} is no number that could be kept from being called")
        row = {
            "number": known,
            "added_at": self._clock.utc(),
            "reason": _UNSTORABLE.sub("\ufffd", reason),
            "call_id": call_id,
            "line": line,
        }
        await self._attempts.execute(
            self._insert(_do_not_call).values(row).on_conflict_do_nothing(index_elements=["number"])
        )

    async def refuses_calls(self, number: str) -> bool:
        """Whether ``number`` is not to be called.

        Raises:
            StoreError: it cannot be read.
        """
        query = select(_do_not_call.c.number).where(_do_not_call.c.number.in_(spellings(number)))

        async def read(connection: AsyncConnection) -> bool:
            return (await connection.execute(query)).first() is not None

        return await self._attempts.run(read)
