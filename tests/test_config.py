"""Settings: what an operator gets to read when the file is wrong, and what the processes get when it is right."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from appliance.cli.reference import PAGE, page
from appliance.config import Settings, load_settings, reference, shipped, shipped_dir
from appliance.config.marks import parse
from appliance.errors import ConfigError
from appliance.signalling.builtin_carriers import carrier_registry
from tests.config_files import load, mistakes, write

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("in_tmp_path")


# --- the embedded default ---------------------------------------------------------------------------------------------


def test_without_a_file_the_box_runs_on_loopback() -> None:
    box = load_settings(None, [])
    assert [(one.transport, one.host, one.port) for one in box.listen.sip] == [("udp", "127.0.0.1", 5060)]
    assert (box.listen.http.host, box.listen.http.port) == ("127.0.0.1", 8080)
    assert (box.listen.media.host, box.listen.media.port) == ("127.0.0.1", 8081)
    assert (box.listen.rtp_host, box.listen.rtp_port_range) == ("127.0.0.1", (16384, 18383))
    assert [(name, trunk.kind, [str(net) for net in trunk.allow]) for name, trunk in box.trunks.items()] == [
        ("local", "sip", ["127.0.0.0/8"]),
        ("phone", "browser", ["127.0.0.0/8"]),
    ]
    assert box.engines.asr.provider == "pocketsphinx"
    assert box.store.url == "sqlite+aiosqlite:///var/appliance.db"
    assert box.dialplans.paths == (shipped_dir("dialplans"),)


def test_an_empty_file_is_the_embedded_default() -> None:
    assert load("# nothing yet\n") == load_settings(None, ["secrets_file=secrets.yaml"])


def test_the_shipped_dialplans_are_found_in_a_checkout() -> None:
    assert (shipped_dir("dialplans") / "reception.yaml").is_file()


def test_an_installed_wheel_carries_the_shipped_files(tmp_path: Path) -> None:
    wanted = "building a wheel needs setuptools 77 or newer; make setup-dev installs it"
    assert int(metadata.version("setuptools").partition(".")[0]) >= 77, wanted
    source = tmp_path / "source"
    for name in ("appliance/__init__.py", "pyproject.toml", "LICENSE", "dialplans/reception.yaml"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "README.md").write_text("# appliance\n")
    (source / "plugins").mkdir()
    (source / "plugins" / "crm.py").write_text("")
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:
        names = [name.partition(".data/data/")[2] for name in wheel.namelist()]
    assert {"share/appliance/dialplans/reception.yaml", "share/appliance/plugins/crm.py"} <= set(names)


def test_the_shipped_dialplans_are_found_where_a_wheel_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "__file__", "/usr/lib/python3/site-packages/appliance/config/shipped.py")
    assert shipped_dir("dialplans") == Path(sys.prefix, "share", "appliance", "dialplans")


# --- good files -------------------------------------------------------------------------------------------------------


def test_a_whole_file() -> None:
    box = load(
        """
        listen:
          sip: [{host: 0.0.0.0, port: 5062}, {host: 10.1.1.1}]
          advertised: 192.0.2.1
        trunks:
          office-pbx: {kind: sip, proxy: "sip:10.0.0.2", allow: [10.0.0.2, "2001:db8::/32"], codecs: [pcma]}
        engines:
          asr: {provider: fake, delay_ms: 100, text: hello there, workers: 3}
          llm: {provider: fake, options: {first_token_ms: 150}}
        limits: {max_calls: 10, max_cps: 2.5}
        log: {level: debug}
        """
    )
    assert [(one.host, one.port) for one in box.listen.sip] == [("0.0.0.0", 5062), ("10.1.1.1", 5060)]
    assert [str(net) for net in box.trunks["office-pbx"].allow] == ["10.0.0.2/32", "2001:db8::/32"]
    assert list(box.trunks) == ["office-pbx"], "the trunks of the file replace the default's"
    assert box.engines.asr.options == {"delay_ms": 100, "text": "hello there"}
    assert box.engines.asr.workers == 3
    assert box.engines.llm.options == {"first_token_ms": 150}
    assert (box.limits.max_cps, box.log.level) == (2.5, "debug")


def test_what_the_box_writes_follows_state_dir() -> None:
    box = load("state_dir: /srv/box\nstore: {retention_days: 7}\n")
    assert box.store.url == "sqlite+aiosqlite:////srv/box/appliance.db"
    assert (box.store.recordings, box.runtime_dir) == (Path("/srv/box/recordings"), Path("/srv/box/run"))
    assert load("state_dir: x\nstore: {recordings: /mnt/wav}\n").store.recordings == Path("/mnt/wav")


def test_dialplans_lie_beside_the_file_that_names_them() -> None:
    path = write("dialplans: {paths: [mine]}\nplugins: {paths: [/abs]}\n", "etc/appliance.yaml")
    box = load_settings(path, ["limits.drain_s=1"], environ={})
    assert box.dialplans.paths == (Path("etc/mine"),)
    assert box.plugins.paths == (Path("/abs"),)
    overridden = load_settings(path, ["dialplans.paths=[here]"], environ={})
    assert overridden.dialplans.paths == (Path("here"),), "what the command line names is in the working directory"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("yes", "yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("0301234", "0301234"),
        ("+49301234", "+49301234"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("true", True),
        ("12", 12),
        ("-1.5", -1.5),
        ("~", None),
        ("", None),
        ("9" * 30, "9" * 30),
    ],
)
def test_scalars_are_what_they_look_like(written: str, read: object) -> None:
    value = parse(f"key: {written}", "f").data["key"]
    assert (type(value), value) == (type(read), read)


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides_reach_into_the_default() -> None:
    box = load_settings(
        None,
        [
            "listen.sip.0.port=5070",
            "listen.sip.1.port=5071",
            "trunks.pbx={kind: sip, allow: [10.0.0.2]}",
            "engines.asr.provider=fake",
            "engines.asr.delay_ms=100",
            "limits.max_calls=5",
            "limits.max_calls=6",
        ],
    )
    assert [(one.host, one.port) for one in box.listen.sip] == [("127.0.0.1", 5070), ("127.0.0.1", 5071)]
    assert list(box.trunks) == ["local", "phone", "pbx"]
    assert (box.engines.asr.provider, box.engines.asr.options) == ("fake", {"delay_ms": 100})
    assert box.limits.max_calls == 6, "the last one wins"


def test_state_dir_can_be_overridden() -> None:
    box = load_settings(None, ["state_dir=/srv/box", "store.retention_days=2"])
    assert (box.store.recordings, box.store.retention_days) == (Path("/srv/box/recordings"), 2)


def test_wrong_overrides_are_named() -> None:
    assert mistakes("", "listen.http.port=zzz", "foo", "listen.sip.7.port=3", "limts.max_calls=1", "log=\t") == [
        "--set:1: listen.http.port: must be a whole number, not 'zzz'",
        "--set:2: override: 'foo' is not KEY=VALUE; write --set listen.sip.0.port=5070",
        "--set:3: listen.sip.7.port: there is no such key to override; list items count from 0; "
        "see docs/configuration.md",
        "--set:4: limts: unknown key; did you mean 'limits'?",
        "--set:5: log: a tab is used for indentation; use spaces",
    ]


# --- secrets ----------------------------------------------------------------------------------------------------------

WITH_SECRETS = """
trunks: {pbx: {kind: sip, password: !secret pbx-password}}
engines: {llm: {provider: fake, api_key: !secret key, nested: [{deep: !secret key}]}}
"""


def test_secrets_come_from_the_environment_first_then_from_the_file() -> None:
    write("pbx-password: 0123\nkey: from file\n", "secrets.yaml")
    box = load(WITH_SECRETS, environ={"APPLIANCE_SECRET_KEY": "from environment"})
    password, key = box.trunks["pbx"].password, box.engines.llm.options["api_key"]
    assert password is not None
    assert password.get_secret_value() == "0123", "as written, not as a number"
    assert isinstance(key, SecretStr)
    assert key.get_secret_value() == "from environment"


def test_no_secret_shows() -> None:
    box = load(WITH_SECRETS, environ={"APPLIANCE_SECRET_KEY": "hunter2", "APPLIANCE_SECRET_PBX_PASSWORD": "hunter2"})
    assert "hunter2" not in f"{box!r} {box} {box.model_dump()} {box.model_dump_json()}"
    assert "hunter2" in box.dump_json()


def test_a_password_that_is_wrong_is_not_repeated() -> None:
    found = mistakes(
        "trunks: {pbx: {kind: sip, password: [hunter2], pasword: hunter2}}", "trunks.pbx.username=[hunter2]"
    )
    assert not [line for line in found if "hunter2" in line]
    assert (
        "appliance.yaml:1: trunks.pbx.password: must be text; write `!secret NAME`, and NAME in secrets.yaml" in found
    )


def test_a_missing_secret_is_one_mistake_with_the_way_out() -> None:
    write("pbx_password: x\n", "secrets.yaml")
    assert mistakes("\ntrunks: {pbx: {kind: sip, password: !secret pbx_pasword}}") == [
        "appliance.yaml:2: trunks.pbx.password: secret 'pbx_pasword' is not defined; did you mean 'pbx_password'? "
        "Or add it to secrets.yaml beside the configuration, or set APPLIANCE_SECRET_PBX_PASWORD"
    ]


def test_mistakes_in_the_secrets_file_are_reported_there() -> None:
    write("a: x\nb: [1]\n", "secrets.yaml")
    found = mistakes("trunks: {pbx: {kind: sip, password: !secret b}}")
    assert "secrets.yaml:2: b: must be text; write one value for each name" in found


def test_a_child_process_gets_the_same_settings() -> None:
    box = load(WITH_SECRETS, environ={"APPLIANCE_SECRET_KEY": "k", "APPLIANCE_SECRET_PBX_PASSWORD": "p"})
    child = Settings.model_validate_json(box.dump_json())
    assert child == box
    assert child.trunks["pbx"].password == box.trunks["pbx"].password
    assert child.engines.llm.options == box.engines.llm.options
    assert child != load_settings(None, [])


# --- anything at all --------------------------------------------------------------------------------------------------

_words = st.sampled_from(
    ["listen", "sip", "http", "port", "trunks", "kind", "allow", "engines", "asr", "provider", "options", "store", "x"]
)
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | _words
_trees = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4), max_leaves=20
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200) | st.text(alphabet="ab:-[]{}&*!#|>'\"\n\t \\u%@,?0", max_size=60))
def test_any_text_loads_or_is_a_config_error(text: str) -> None:
    document = parse(text, "f")
    str(document.mistakes)
    path = Path("fuzz.yaml")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        load_settings(path, [], environ={})
    except ConfigError as error:
        assert error.mistakes
        str(error).encode()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(_words, _trees, max_size=5), st.lists(st.text(max_size=12), max_size=2))
def test_any_data_loads_or_is_a_config_error(data: dict[str, Any], overrides: list[str]) -> None:
    import yaml

    path = Path("fuzz.yaml")
    path.write_text(yaml.safe_dump(data, allow_unicode=False))
    try:
        box = load_settings(path, overrides, environ={})
    except ConfigError as error:
        assert error.mistakes
    else:
        assert Settings.model_validate_json(box.dump_json()) == box


# --- the documents ----------------------------------------------------------------------------------------------------


def test_the_reference_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m appliance.cli.reference`"


def models_in(model: type[BaseModel]) -> list[type[BaseModel]]:
    return list(dict.fromkeys(inner for _, inner in reference.sections(model, "")))


@pytest.mark.parametrize("model", models_in(Settings), ids=lambda model: model.__name__)
def test_every_key_is_described(model: type[BaseModel]) -> None:
    assert model.__doc__
    text = page()
    for name, info in model.model_fields.items():
        assert info.description, f"{model.__name__}.{name} has no description"
        assert f"| `{info.alias or name}` |" in text


@pytest.mark.parametrize("kind", carrier_registry().kinds)
def test_every_key_of_a_carrier_is_described(kind: str) -> None:
    options = carrier_registry().carriers[kind].provider.options
    rows = reference.table(options).splitlines()[2:]
    assert f"`kind: {kind}`" in page()
    assert [row for row in rows if row.endswith("|  |")] == []
    assert len(rows) == len(options.model_fields)
