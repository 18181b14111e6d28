"""The hooks that are called while a call is being taken, with what keeps a broken plugin from breaking calls."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pluggy

from appliance import hookspecs
from appliance.errors import EngineError
from appliance.hook_types import Call
from appliance.hookspecs import IdentityClaim

logger = logging.getLogger(__name__)

_MAX_VERDICT = 64


class CallHooks:
    """Calls what plugins implement of ``hookspecs`` for single calls.

    Args:
        plugins: (name, plugin object), in order of priority.

    Raises:
        EngineError: two plugins have one name, or a plugin implements a hook that does not exist.
    """

    def __init__(self, plugins: Sequence[tuple[str, object]] = ()) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        try:
            for name, plugin in plugins:
                self._manager.register(plugin, name)
            self._manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise EngineError(f"a plugin cannot be registered: {error}", retryable=False) from error

    def verify_identity(self, claim: IdentityClaim) -> str:
        """The verdict of the first plugin that has one; "" where none has, or it failed."""
        try:
            verdict = self._manager.hook.appliance_verify_identity(call=Call(""), claim=claim)
        except Exception:
            logger.exception("appliance_verify_identity failed; the network's own verdict on the caller is taken")
            return ""
        return verdict[:_MAX_VERDICT] if isinstance(verdict, str) and verdict.isprintable() else ""
