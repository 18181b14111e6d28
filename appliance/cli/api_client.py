"""The HTTP API of the running box, for commands that ask it for something."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Final

from appliance.config.settings import Settings
from appliance.errors import ApplianceError

_TIMEOUT_S: Final = 75.0
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ApiClient:
    """Asks the box that runs with these settings.

    Raises:
        ApplianceError: they list no token.
    """

    def __init__(self, settings: Settings) -> None:
        if not settings.api.tokens:
            raise ApplianceError("the box has no API: list a token under api.tokens and start it again")
        where = settings.listen.http
        host = _EVERYWHERE.get(where.host, where.host)
        self._base = f"http://{f'[{host}]' if ':' in host else host}:{where.port}"
        self._token = settings.api.tokens[0].get_secret_value()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that the box answers with.

        Raises:
            ApplianceError: nobody answers, or with a refusal; the message says why.
        """
        request = urllib.request.Request(
            self._base + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as refused:
            raise ApplianceError(_reason(refused)) from refused
        except (OSError, ValueError) as error:
            hint = "start one with `appliance serve`, or give the same -c and --set as it has"
            raise ApplianceError(f"no box answers at {self._base}: {error}; {hint}") from error


def _reason(refused: urllib.error.HTTPError) -> str:
    try:
        told = json.loads(refused.read())
        mistakes = "".join(f"\n  {one['key']}: {one['what']}" for one in told.get("mistakes", ()))
        return f"{told['error']}{mistakes}"
    except (ValueError, KeyError, TypeError):
        return f"the box answers {refused.code} {refused.reason}"
