"""Whatever a call says, the URL stays where the operator put it."""

from __future__ import annotations

import contextlib
import json
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from appliance.errors import ToolError
from appliance.plugins.declarative import response
from appliance.plugins.declarative.schema import Response
from appliance.plugins.declarative.templates import Scope, render_url

SAID = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="./\\%2eE@:?#&=;[] \t\r\n${}x", max_size=30),
    st.integers(),
    st.booleans(),
    st.none(),
    st.lists(st.text(max_size=5), max_size=3),
)
PLACE = "https://api.example.com:8443/v1/${arguments.a}/of/x-${arguments.b}.json?k=1&q=${arguments.c}"


@given(a=SAID, b=SAID, c=SAID, d=SAID)
def test_no_argument_changes_host_path_or_other_parameters(a: Any, b: Any, c: Any, d: Any) -> None:
    try:
        text = render_url(PLACE, {"d": "${arguments.d}"}, Scope(arguments={"a": a, "b": b, "c": c, "d": d}))
    except ToolError:
        return
    for host, port, path, query in (
        (URL(text, encoded=True).host, URL(text, encoded=True).port, URL(text, encoded=True).raw_path, None),
        (urlsplit(text).hostname, urlsplit(text).port, urlsplit(text).path, urlsplit(text).query),
    ):
        assert (host, port) == ("api.example.com", 8443)
        segments = path.split("/")
        assert len(segments) == 5
        assert segments[:2] == ["", "v1"]
        assert segments[3] == "of"
        assert segments[4].startswith("x-")
        assert segments[4].endswith(".json")
        assert not any(unquote(segment) in (".", "..") for segment in segments)
        if query is not None:
            names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
            assert names[:2] == ["k", "q"]
            assert set(names[2:]) <= {"d"}
    assert text.isascii()
    assert not set(text) & set(" \r\n\t#")


@given(host=st.one_of(st.text(max_size=40), st.text(alphabet="a.@:/\\?#[]%0x1 ", max_size=20)))
def test_an_operators_value_is_a_host_or_refused(host: str) -> None:
    try:
        text = render_url("https://${values.host}/x", {}, Scope(values={"host": host}))
    except ValueError:
        return
    assert URL(text, encoded=True).raw_path.endswith("/x")
    assert URL(text, encoded=True).user is None
    assert (URL(text, encoded=True).raw_host or "").lower().strip("[]") in host.lower()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_whatever_json_comes_what_is_told_is_bounded(body: Any) -> None:
    small = Response(max_characters=20, max_items=2)
    told = response.told(small, json.dumps(body).encode())

    def check(node: Any) -> None:
        if isinstance(node, str):
            assert len(node) <= 24
        if isinstance(node, list):
            assert len(node) <= 2
        for item in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            check(item)

    check(told)


@given(st.binary(max_size=200))
def test_whatever_bytes_come_only_the_named_error_is_raised(body: bytes) -> None:
    for how in ("json", "text"):
        with contextlib.suppress(ToolError):
            response.told(Response(format=how), body, "utf-8")  # type: ignore[arg-type]
