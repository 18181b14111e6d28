"""What can be set of every engine behind an OpenAI-compatible API."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from appliance.engines.api_address import HeaderName, HeaderText
from appliance.hookspecs import ProviderOptions


class ApiOptions(ProviderOptions):
    """Where the server is, and how it is told who asks."""

    base_url: str = Field(description="Where the server's API begins.")
    model: str = Field(min_length=1, max_length=256, description="The model, as the server calls it.")
    api_key: HeaderText | None = Field(default=None, description="Its key, if it wants one: `!secret NAME`.")
    extra_headers: dict[HeaderName, HeaderText] = Field(default={}, description="Further HTTP headers.")
    ca_file: Path | None = Field(default=None, description="Certificates to trust instead of the system's.")


class HttpApiOptions(ApiOptions):
    """The same for requests over HTTP, and the connections that they use."""

    connections: int = Field(default=2, ge=0, le=64, description="Connections kept open while nobody asks; 0: none.")
    keep_alive_s: float = Field(default=15.0, ge=1, le=300, description="How often these are used, so that they stay.")


class RealtimeApiOptions(ApiOptions):
    """The same for OpenAI's Realtime protocol over a WebSocket."""

    dialect: Literal["ga", "beta"] = Field(
        default="ga", description="beta: the protocol as it was before August 2025, which many other servers speak."
    )
    connect_s: float = Field(default=3.0, gt=0, le=60, description="A connection that is not open by then has failed.")
