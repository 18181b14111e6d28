"""The streams that the media process can read."""

from __future__ import annotations

from collections.abc import Sequence

from appliance.api.carriers import StreamKinds
from appliance.carriers.builtin import BuiltinStreams
from appliance.plugins.registry import StreamRegistry


def stream_kinds(plugins: Sequence[tuple[str, object]] = ()) -> StreamKinds:
    """The built-in streams, and those of ``plugins`` as (name, plugin) after them, by the kind of trunk."""
    return StreamRegistry([("builtin_streams", BuiltinStreams()), *plugins]).streams
