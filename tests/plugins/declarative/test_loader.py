"""Reading YAML plugins: every mistake at its line, with its remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import SecretStr

from appliance.errors import ConfigError
from appliance.plugins.declarative.loader import examine_declarative, load_declarative
from tests.plugins.declarative.server import plugin_of

GOOD = """
summary: Our shop.
values: {shop: north, mode: {choices: [a, b], default: a}, key: {secret: true}}
secrets: {token: !secret token}
tools:
  order_status:
    description: The state of an order.
    parameters: {type: object, properties: {number: {type: string}}, required: [number]}
    url: https://api.example.com/${values.shop}/${arguments.number}
tables:
  prices: {file: prices.csv, key: article, columns: [price], description: Prices.}
webhooks:
  crm: {url: "https://hooks.example.com/${secrets.token}", secret: !secret token}
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prices.csv").write_text("article,price\nHat,3\n")


def secrets(name: str) -> SecretStr | str:
    return SecretStr("0123456789abcdef") if name == "token" else "add it to secrets.yaml"


def mistakes(text: str, name: str = "shop.yaml") -> list[str]:
    Path(name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_declarative([Path(name)], secrets)
    return [str(one) for one in caught.value.mistakes]


def test_a_right_file_is_taken_whole() -> None:
    Path("shop.yaml").write_text(GOOD)
    (plugin,) = load_declarative([Path()], secrets).values()
    assert (plugin.name, plugin.origin, plugin.tools) == ("shop", "shop.yaml:2", ("order_status", "lookup_prices"))
    assert plugin.rows["prices"].count == 1
    assert "0123456789abcdef" not in repr(plugin)


def test_a_plugin_can_be_read_by_another_process() -> None:
    Path("shop.yaml").write_text(GOOD)
    found = examine_declarative([Path()], secrets)
    (plugin,) = found.plugins.values()
    assert plugin.values_problems({"key": SecretStr("k")}) == []
    copy = pickle.loads(pickle.dumps(plugin))
    assert copy == plugin
    assert copy.values_problems({"key": SecretStr("k")}) == []
    assert [str(file) for file in found.files] == ["shop.yaml", "prices.csv"]


HEAD = GOOD.partition("tables:")[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("summary", "sumary", "shop.yaml:2: sumary: unknown key; did you mean 'summary'?"),
        (
            "https://api.example.com/",
            "https://${arguments.number}/",
            "shop.yaml:9: tools.order_status.url: ${arguments.number} cannot say which server is asked; "
            "write the host out, or use ${values.X}, which only operators set",
        ),
        (
            "https://api.example.com/",
            "https://${call.caller}.example.com/",
            "shop.yaml:9: tools.order_status.url: ${call.caller} cannot say which server is asked; "
            "write the host out, or use ${values.X}, which only operators set",
        ),
        (
            "https://api.example.com/",
            "${arguments.number}/",
            "shop.yaml:9: tools.order_status.url: ${arguments.number} cannot say which server is asked; "
            "write the host out, or use ${values.X}, which only operators set",
        ),
        (
            "https://api.example.com/",
            "https://api.example.com:${arguments.number}/",
            "shop.yaml:9: tools.order_status.url: ${arguments.number} cannot say which server is asked; "
            "write the host out, or use ${values.X}, which only operators set",
        ),
        (
            "https://api",
            "${arguments.number}://api",
            "shop.yaml:9: tools.order_status.url: does not begin with https:// and a host; "
            "write it as https://api.example.com/orders/${arguments.number}",
        ),
        (
            "https://api",
            "ftp://api",
            "shop.yaml:9: tools.order_status.url: does not begin with https:// and a host; "
            "write it as https://api.example.com/orders/${arguments.number}",
        ),
        (
            "https://api",
            "https://u:p@api",
            "shop.yaml:9: tools.order_status.url: holds a user or a password; send it in a header; "
            "write it as https://api.example.com",
        ),
        (
            "https://api.example.com",
            "http://10.0.0.5",
            "shop.yaml:9: tools.order_status.url: 10.0.0.5 is not a public address; add allow_hosts: [10.0.0.5]",
        ),
        (
            "${arguments.number}\n",
            "${arguments.numbr}\n",
            "shop.yaml:9: tools.order_status.url: unknown variable ${arguments.numbr}; did you mean 'number'?",
        ),
        (
            "${values.shop}",
            "${vaules.shop}",
            "shop.yaml:9: tools.order_status.url: unknown variable ${vaules.shop}; did you mean 'values'?",
        ),
        (
            "${values.shop}",
            "${values.shop|upper}",
            "shop.yaml:9: tools.order_status.url: '${values.shop|upper}' is no variable; write it as ${arguments.NAME}",
        ),
        (
            ", required: [number]",
            "",
            "shop.yaml:9: tools.order_status.url: the path needs 'number', which the model may leave out; "
            "add number to parameters.required",
        ),
        (
            "type: object, properties",
            "properties",
            "shop.yaml:8: tools.order_status.parameters: is not of type object; begin with `type: object` and "
            "`properties:`",
        ),
        (
            "{type: string}",
            "{type: string, pattern: '^(?=a)b'}",
            "shop.yaml:8: tools.order_status.parameters.properties.number.pattern: '^(?=a)b' cannot be held against "
            "what a caller says in bounded time; do without looking ahead or behind, and without references back",
        ),
        (
            "{type: string}",
            "{type: sting}",
            "shop.yaml:8: tools.order_status.parameters.properties.number.type: is no JSON schema: 'sting' is not "
            "valid under any of the given schemas; see json-schema.org",
        ),
        (
            "!secret token}",
            "plain}",
            "shop.yaml:4: secrets.token: is written out; write `!secret NAME`, and NAME in secrets.yaml",
        ),
        (
            "!secret token}",
            "!secret tken}",
            "shop.yaml:4: secrets.token: secret 'tken' is not defined; add it to secrets.yaml",
        ),
        (
            "default: a",
            "default: c",
            "shop.yaml:3: values.mode.default: is not one of choices; add it to choices, or change it",
        ),
        (
            "    url:",
            "    retries: 2\n    method: POST\n    url:",
            "shop.yaml:9: tools.order_status.retries: POST must not be sent twice without the server's knowing; "
            "set idempotency_key: true if it honours Idempotency-Key, else remove it",
        ),
        (
            "    url:",
            "    body: {}\n    url:",
            "shop.yaml:9: tools.order_status.body: GET sends no body; use `query`, or method: POST",
        ),
        (
            "    url:",
            "    headers: {X-Number: '${arguments.number}'}\n    url:",
            "shop.yaml:9: tools.order_status.headers.X-Number: ${arguments.number} cannot stand here; "
            "what can: ${values.X}, ${secrets.X}, ${call.X}",
        ),
        (
            "    url:",
            "    headers: {X-Caller: '${call.caller}'}\n    url:",
            "shop.yaml:9: tools.order_status.headers.X-Caller: unknown variable ${call.caller}; known: id, line",
        ),
        (
            "    url:",
            "    headers: {Host: evil}\n    url:",
            "shop.yaml:9: tools.order_status.headers.Host: the box sets Host by itself; "
            "remove it; `body_as` sets the type of the body",
        ),
        (
            "    url:",
            "    confirm: Really ${values.shop}?\n    url:",
            "shop.yaml:9: tools.order_status.confirm: ${values.shop} cannot stand here; what can: ${arguments.X}",
        ),
        (
            "    url:",
            "    response: {errors: {200: fine}}\n    url:",
            "shop.yaml:9: tools.order_status.response.errors.200: '200' is not the status of an error; "
            "write one from 400 to 599",
        ),
        (
            "    url:",
            "    response: {tell: {a: b..c}}\n    url:",
            "shop.yaml:9: tools.order_status.response.tell.a: 'b..c' has an empty part; write it as order.items.0.name",
        ),
        (
            "    url:",
            "    attempt_s: 9\n    url:",
            "shop.yaml:9: tools.order_status.attempt_s: is more than timeout_s (8); lower it",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_and_its_remedy(old: str, new: str, said: str) -> None:
    assert old in HEAD
    assert mistakes(HEAD.replace(old, new, 1)) == [said]


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ("", "prices.csv:1: article: is empty; its first row names the columns"),
        ("art,price\n", "prices.csv:1: article: has no column 'article'; its columns are: art, price"),
        ("article,price,price\n", "prices.csv:1: article: has column 'price' twice; rename one"),
        (
            "article,price\na,1\nb\n",
            "prices.csv:3: article: has 1 cells, not 2; put cells that hold a comma in double quotes",
        ),
        ("article,price\n--,1\n", "prices.csv:2: article: article is '--', not text; correct the cell"),
        ('article,price\na,"1\n', "prices.csv:2: article: is not CSV: unexpected end of data; check the quotes"),
    ],
)
def test_a_mistake_in_a_table_is_told_at_its_line_there(csv: str, said: str) -> None:
    Path("prices.csv").write_text(csv)
    assert mistakes(GOOD) == [said]


def test_what_is_wrong_with_files_and_webhooks() -> None:
    Path("prices.csv").unlink()
    text = GOOD.replace("secret: !secret token", "events: [call.over]")
    assert mistakes(text) == [
        "shop.yaml:11: tables.prices.file: prices.csv cannot be read: no such file or directory; "
        "the path is relative to this file",
        "shop.yaml:13: webhooks.crm.events.0: must be one of call.started, call.answered, call.ended, call.recorded, "
        "tool.used, not 'call.over'",
        "shop.yaml:13: webhooks.crm.secret: is missing; add one, such as `!secret hook_key`",
    ]
    assert mistakes("summary: x\n") == ["shop.yaml:1: file: does nothing; give it tools, tables or webhooks"]
    assert mistakes("- x\n") == ["shop.yaml:1: file: is not a plugin; see docs/plugins/yaml.md"]
    assert "is not a name for a plugin" in mistakes(HEAD, "my shop.yaml")[0]
    (short,) = mistakes(HEAD + "webhooks: {a: {url: 'https://a.example', secret: !secret short}}\n")[:1]
    assert "secret 'short' is not defined" in short


def test_a_file_of_an_authority_has_to_be_one() -> None:
    hint = "name a PEM file, relative to this one"
    assert mistakes(f"ca: none.pem\n{HEAD}") == [
        f"shop.yaml:1: ca: none.pem cannot be used: no such file or directory; {hint}"
    ]
    assert mistakes(f"ca: prices.csv\n{HEAD}") == [f"shop.yaml:1: ca: prices.csv cannot be used: no PEM data; {hint}"]


def test_only_the_mistakes_of_plugins_that_are_enabled_count() -> None:
    Path("good.yaml").write_text("tables: {t: {file: prices.csv, key: article, columns: [price], description: x}}\n")
    Path("bad.yaml").write_text("tool: {}\n")
    found = examine_declarative([Path()])
    assert list(found.plugins) == ["good"]
    assert found.mistakes_of({"good"}) == []
    assert [one.key for one in found.mistakes_of({"bad"})] == ["tool"]
    assert list(load_declarative([Path()], enabled={"good"})) == ["good"]


def test_two_files_of_one_name_are_a_mistake() -> None:
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Path(folder, "a.yaml").write_text(HEAD)
    (said,) = examine_declarative([Path("one"), Path("two")], secrets).mistakes_of({"a"})
    assert str(said) == "two/a.yaml:1: file: 'a' is already the plugin in one/a.yaml; rename one of the files"


def test_values_are_checked_as_those_of_any_plugin() -> None:
    plugin = plugin_of(Path(), GOOD, token="0123456789abcdef")
    problems = plugin.values_problems
    assert problems({"key": SecretStr("k")}) == []
    assert problems({"key": "k", "mode": "c", "shpo": 1}) == [
        (("key",), "is written out", "write `!secret NAME`, and NAME in secrets.yaml"),
        (("mode",), "must be one of a, b, not 'c'", ""),
        (("shpo",), "unknown key", "did you mean 'shop'?"),
    ]
    assert [path for path, *_ in problems({})] == [("key",)]
