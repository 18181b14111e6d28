"""Work on the database that is tried again: a locked database must not lose what somebody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from appliance.errors import StoreError

_ATTEMPTS: Final = 3
_RETRY_S: Final = 0.2

T = TypeVar("T")


class Attempts:
    """Runs each piece of work in a transaction of its own, up to three times.

    Args:
        engine: stays with whoever made it.
        what: what is kept there, for the message of an error.
    """

    def __init__(self, engine: AsyncEngine, what: str) -> None:
        self._engine = engine
        self._what = what

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What ``work`` gives.

        Raises:
            StoreError: it has failed each time.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._engine.begin() as connection:
                    return await work(connection)
            except (SQLAlchemyError, OSError) as error:
                if attempt == _ATTEMPTS:
                    cause = getattr(error, "orig", None) or error
                    raise StoreError(
                        f"{self._what} cannot be read or written: {cause}; check store.url and its disk"
                    ) from error
                await asyncio.sleep(_RETRY_S)
        raise AssertionError("unreachable")

    async def execute(self, statement: Any) -> int:
        """Carry out a statement that changes something; how many rows it changed.

        Raises:
            StoreError: it has failed each time.
        """

        async def write(connection: AsyncConnection) -> int:
            return int((await connection.execute(statement)).rowcount)

        return await self.run(write)
