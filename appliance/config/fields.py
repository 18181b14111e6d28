"""The kinds of value that settings are made of, each with what it says to an operator who got it wrong."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, TypeAlias

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    SerializationInfo,
    StringConstraints,
)

from appliance.config.validation import fault, short_form

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")
_SECRET_MARK = "!secret"
_BETWEEN_DIGITS = str.maketrans("", "", " -().\t/")
_WHOLE_NUMBER = re.compile(r"\+[1-9][0-9]{4,14}")


@short_form({"type": ["string", "number"]})
def _secret_in(value: Any) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return SecretStr(str(value))
    raise fault("must be text", "write `!secret NAME`, and NAME in secrets.yaml")


def _secret_out(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if _reveals(info) else "**********"


@short_form()
def _options_in(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {_SECRET_MARK}:
            return SecretStr(str(value[_SECRET_MARK]))
        return {str(key): _options_in(item) for key, item in value.items()}
    return [_options_in(item) for item in value] if isinstance(value, list) else value


def _options_out(value: Any, info: SerializationInfo) -> Any:
    if isinstance(value, SecretStr):
        return {_SECRET_MARK: value.get_secret_value()} if _reveals(info) else "**********"
    if isinstance(value, dict):
        return {key: _options_out(item, info) for key, item in value.items()}
    return [_options_out(item, info) for item in value] if isinstance(value, list) else value


def _reveals(info: SerializationInfo) -> bool:
    return isinstance(info.context, dict) and info.context.get("reveal") is True


@short_form(
    {"type": "array", "items": {"type": "string"}},
    {"type": "string"},
    {"type": "object", "additionalProperties": {"type": ["object", "null", "boolean"]}},
)
def _by_name(value: Any) -> Any:
    """A list of names as a mapping to no values."""
    if isinstance(value, dict):
        return {key: {} if item is None or item is True else item for key, item in value.items()}
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        return value
    for item in items:
        if not isinstance(item, str):
            raise fault("must list names of plugins", "to give one values, write a mapping: `NAME: {key: value}`")
    return {item: {} for item in items}


@short_form({"type": ["string", "integer"]})
def _network(value: Any) -> Any:
    try:
        return ipaddress.ip_network(value if isinstance(value, int) else str(value))
    except ValueError:
        try:
            meant = ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            hint = "write an address or a network such as 10.0.0.0/8"
            raise fault(f"{str(value)!r} is not a network", hint) from None
        raise fault(f"{str(value)!r} has bits set behind its prefix", f"did you mean {meant}?") from None


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        return False
    return True


def _address(value: str) -> str:
    if not _is_address(value) or ipaddress.ip_address(value).is_unspecified:
        raise fault(f"{value!r} is not an address that peers can reach", "write one such as 192.0.2.10; names are not")
    return value


def _host(value: str) -> str:
    if (
        not value
        or any(char.isspace() or char in "/@[]" for char in value)
        or (":" in value and not _is_address(value))
    ):
        raise fault(f"{value!r} is not an address", "write a host or IP address alone, with no port")
    return value


def _region(value: str) -> str:
    if value not in phonenumbers.SUPPORTED_REGIONS:
        hint = "write GB" if value == "UK" else "write its two capitals as in ISO 3166, such as DE, GB or US"
        raise fault(f"{value!r} is not a country", hint)
    return value


def _whole_number(value: str) -> str:
    bare = value.translate(_BETWEEN_DIGITS)
    if not _WHOLE_NUMBER.fullmatch(bare):
        raise fault(f"{value!r} is not a whole telephone number", "write it with + and country code: +12025550100")
    return bare


def _language(value: str) -> str:
    if not _LANGUAGE.fullmatch(value):
        raise fault(f"{value!r} is not the code of a language", "write it in small letters, such as de or en-us")
    return value


def gathered(data: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """``data`` with all that are no keys of ``model`` moved into its ``options``."""
    own = {key: value for key, value in data.items() if key in model.model_fields}
    extra = {key: value for key, value in data.items() if key not in model.model_fields}
    if extra and isinstance(own.get("options", {}), dict):
        own["options"] = {**own.get("options", {}), **extra}
    return own


def unavailable(what: str, value: str, instead: str) -> Exception:
    """For what a later version will take."""
    return fault(f"{what} {value!r} is not available in this version", instead)


Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
Host: TypeAlias = Annotated[str, AfterValidator(_host)]
Address: TypeAlias = Annotated[str, AfterValidator(_address)]
Secret: TypeAlias = Annotated[SecretStr, PlainValidator(_secret_in), PlainSerializer(_secret_out, when_used="json")]
Region: TypeAlias = Annotated[str, AfterValidator(_region)]
WholeNumber: TypeAlias = Annotated[str, AfterValidator(_whole_number)]
"""A telephone number as in E.164: a plus, the country code, digits."""
Language: TypeAlias = Annotated[
    str, AfterValidator(_language), Field(json_schema_extra={"pattern": f"^{_LANGUAGE.pattern}$"})
]
NetworkField: TypeAlias = Annotated[Network, BeforeValidator(_network)]
Options: TypeAlias = Annotated[
    dict[str, Any], BeforeValidator(_options_in), PlainSerializer(_options_out, when_used="json")
]
PluginValues: TypeAlias = Annotated[dict[Name, Options], BeforeValidator(_by_name)]
"""Names of plugins, with or without values."""
LinePlugins: TypeAlias = Annotated[dict[Name, Options | Literal[False]], BeforeValidator(_by_name)]
"""The same of a line, where false switches one of the box's off."""
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86400)]
