"""The schema of ``plugins/*.yaml``. PURE.

Every key has a description: the tables in ``docs/plugins/yaml.md`` are made of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr, StringConstraints

from appliance.config.egress import HostPattern
from appliance.config.fields import Name
from appliance.config.validation import Section, fault, short_form

SAFE_METHODS: Final = ("GET",)
EVENTS: Final = ("call.started", "call.answered", "call.ended", "call.recorded", "tool.used")

_RESERVED_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"}
    | {"keep-alive", "accept-encoding", "idempotency-key", "proxy-authorization", "proxy-connection"}
)


@short_form({"type": "string"})
def _secret(value: Any) -> SecretStr:
    if not isinstance(value, SecretStr):
        raise fault("is written out", "write `!secret NAME`, and NAME in secrets.yaml")
    return value


@short_form({"type": ["string", "number"]})
def _text_or_secret(value: Any) -> str | SecretStr:
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = str(value)
        if any(char in text for char in "\r\n\0"):
            raise fault("has more than one line", "write it in one line")
        return text
    raise fault("must be text", "put it in quotes, or write `!secret NAME`")


def _header(name: str) -> str:
    if name.lower() in _RESERVED_HEADERS:
        raise fault(f"the box sets {name} by itself", "remove it; `body_as` sets the type of the body")
    return name


def _status(value: str) -> str:
    if not (value.isdecimal() and 400 <= int(value) <= 599):
        raise fault(f"{value!r} is not the status of an error", "write one from 400 to 599")
    return value


@short_form({"type": ["string", "number", "boolean"]})
def _scalar(value: Any) -> Any:
    return value if isinstance(value, dict | ValueSpec) else {"default": value}


Text: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=4000, strip_whitespace=True)]
Url: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=2000, strip_whitespace=True)]
Said: TypeAlias = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)]
HeaderName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"), AfterValidator(_header)
]
TextOrSecret: TypeAlias = Annotated[str | SecretStr, PlainValidator(_text_or_secret)]
Secret: TypeAlias = Annotated[SecretStr, PlainValidator(_secret)]
Scalar: TypeAlias = str | bool | int | float


class ValueSpec(Section):
    """Something that the box, or a line, may set: `plugins: {NAME: {VALUE: ...}}`. `VALUE: x` is a default."""

    description: Said = Field(default="", description="What it is for.")
    type: Literal["text", "number", "boolean"] | None = Field(
        default=None, description="What may be given; by default as `default` is, or text."
    )
    default: Scalar | None = Field(default=None, description="Where nothing is given; without one it must be given.")
    secret: bool = Field(default=False, description="Whether it has to be given as `!secret NAME`, and is never shown.")
    choices: tuple[Scalar, ...] = Field(default=(), max_length=100, description="What it may be; empty for anything.")

    @property
    def kind(self) -> Literal["text", "number", "boolean"]:
        """Its type."""
        if self.type is not None:
            return self.type
        if isinstance(self.default, bool):
            return "boolean"
        return "number" if isinstance(self.default, int | float) else "text"


class Response(Section):
    """What the model is told of an answer."""

    format: Literal["json", "text"] = Field(default="json", description="How the body is read.")
    tell: dict[Name, Annotated[str, StringConstraints(min_length=1, max_length=200)]] = Field(
        default={},
        max_length=50,
        description="Name that the model is given to the place of its value in the body: `order.items.0.name`, "
        "`order.items.*.name` for all of a list, or a JSON pointer such as `/order/items/0`. Without any: all of it.",
    )
    max_characters: int = Field(default=2000, ge=20, le=4000, description="Longer texts are cut.")
    max_items: int = Field(default=20, ge=1, le=200, description="Of a longer list the model is told the first.")
    errors: dict[Annotated[str, AfterValidator(_status)], Said] = Field(
        default={}, description="Status to what the model is told: `404: There is no order of this number.`"
    )


class HttpTool(Section):
    """Something that the language model may ask a server for."""

    description: Text = Field(description="Tells the model what it does and when to use it.")
    parameters: dict[str, Any] = Field(
        default={"type": "object", "properties": {}, "additionalProperties": False},
        description="JSON schema (2020-12) of what the model gives, of type object.",
    )
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(default="GET", description="Of HTTP.")
    url: Url = Field(
        description="Where to. The host may hold `${values.X}`; path and query also `${arguments.X}` and `${call.X}`.",
        examples=["`https://api.example.com/orders/${arguments.number}`"],
    )
    headers: dict[HeaderName, TextOrSecret] = Field(
        default={}, max_length=50, description="Headers to send: text, with `${values.X}` or `${secrets.X}`."
    )
    query: dict[str, Any] = Field(
        default={}, max_length=50, description="Query parameters; one whose argument the model leaves out is left out."
    )
    body: Any = Field(
        default=None,
        description="What is sent: a mapping whose texts may hold `${...}`. A text that is nothing but one `${...}` "
        "keeps its type, and is left out with its argument. `${arguments}` is all that the model gave.",
    )
    body_as: Literal["json", "form"] = Field(default="json", description="How it is written.")
    timeout_s: float = Field(default=8.0, gt=0, le=60, description="After so long, all attempts included, it failed.")
    attempt_s: float | None = Field(
        default=None, gt=0, le=60, description="How long one attempt may take; by default all the time there is."
    )
    retries: int | None = Field(
        default=None,
        ge=0,
        le=5,
        description="Further attempts after a failure that may pass: by default 2 where it is safe, else none.",
    )
    idempotency_key: bool = Field(
        default=False,
        description="The server does what comes twice with one `Idempotency-Key` once: so other methods than GET may "
        "be tried again.",
    )
    response: Response = Field(default=Response(), description="What the model is told of the answer.")
    filler: Said = Field(default="", description="Said to a caller who has to wait for it; empty for the line's own.")
    confirm: bool | Said = Field(
        default=False,
        description="Whether the caller is asked first; or what: `Shall I cancel order ${arguments.number}?`",
    )
    side_effects: bool | None = Field(
        default=None,
        description="Whether it changes something. By default, what is not a GET does: then it runs only when the "
        "caller has certainly finished speaking, and is finished even where the caller goes on.",
    )

    @property
    def changes(self) -> bool:
        """Whether it has side effects."""
        return self.side_effects if self.side_effects is not None else self.method not in SAFE_METHODS

    @property
    def repeatable(self) -> bool:
        """Whether it may be sent again when nobody knows whether it arrived."""
        return self.method in SAFE_METHODS or self.idempotency_key

    @property
    def attempts(self) -> int:
        """How often it is tried at most."""
        return 1 + (self.retries if self.retries is not None else 2 if self.repeatable else 0)


class Table(Section):
    """A CSV file whose rows the model may look up by one column."""

    file: Annotated[str, StringConstraints(min_length=1, max_length=500)] = Field(
        description="The file, relative to this one: UTF-8, its first row names the columns."
    )
    key: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(description="Column to look up by.")
    match: Literal["text", "number", "phone"] = Field(
        default="text",
        description="How keys compare. text: without regard to case, accents, spaces and punctuation; number: by "
        "value; phone: as telephone numbers.",
    )
    region: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = Field(
        default=None, description="Country of telephone numbers without a country code: `DE`."
    )
    columns: tuple[Annotated[str, StringConstraints(min_length=1, max_length=100)], ...] = Field(
        min_length=1, max_length=50, description="Columns that the model is told; it learns of no others."
    )
    description: Text = Field(description="Tells the model what can be looked up here and when to do it.")
    tool: Name | None = Field(default=None, description="Name of the tool; `lookup_` and the table's name by default.")
    max_rows: int = Field(default=5, ge=1, le=50, description="Rows the model is told at most.")


class Webhook(Section):
    """Events of calls that are sent to a server, signed, again and again until it has taken them."""

    url: Url = Field(
        description="Where to, by POST; `${values.X}` and `${secrets.X}` may be in it.",
        examples=["`https://hooks.example.com/calls`"],
    )
    events: Annotated[tuple[Literal[EVENTS], ...], Field(min_length=1)] = Field(  # type: ignore[valid-type]
        default=("call.ended",), description="Which of them."
    )
    secret: Secret = Field(description="What they are signed with, as `!secret NAME`.", examples=["`!secret hook_key`"])
    headers: dict[HeaderName, TextOrSecret] = Field(
        default={}, max_length=50, description="Further headers: text, with `${values.X}` or `${secrets.X}`."
    )
    timeout_s: float = Field(default=10.0, gt=0, le=60, description="An attempt has failed after so long.")
    attempts: int = Field(
        default=12, ge=1, le=50, description="Given up after so many, and kept as undeliverable in the record."
    )
    concurrency: int = Field(default=2, ge=1, le=20, description="How many are sent at a time.")
    max_waiting: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Events that may wait; further ones are dropped, and counted."
    )


class PluginFile(Section):
    """One file; its name is the plugin's."""

    summary: Said = Field(default="", description="One line for `appliance plugins list`.")
    values: dict[Name, Annotated[ValueSpec, BeforeValidator(_scalar)]] = Field(
        default={}, max_length=100, description="What the box and its lines may set, for `${values.X}`."
    )
    secrets: dict[Name, Secret] = Field(
        default={}, max_length=100, description="Name to `!secret NAME`, for `${secrets.X}`."
    )
    allow_hosts: tuple[HostPattern, ...] = Field(
        default=(),
        max_length=100,
        description="Hosts in private networks, or on this machine, that it may speak to; all others are refused.",
    )
    ca: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        default=None,
        description="PEM file of an authority that signs its servers' certificates, relative to this file, where the "
        "system does not know it.",
    )
    tools: dict[Name, HttpTool] = Field(default={}, max_length=100, description="HTTP tools, by name.")
    tables: dict[Name, Table] = Field(default={}, max_length=50, description="Look-up tables, by name.")
    webhooks: dict[Name, Webhook] = Field(default={}, max_length=50, description="Webhooks, by name.")
