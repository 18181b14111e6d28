"""What an operator gets to read when ``appliance.yaml`` is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.config import Settings, load_settings
from appliance.config.load import MAX_FILE_BYTES
from appliance.config.marks import MAX_DEPTH
from appliance.errors import ConfigError
from tests.certificates import Authority
from tests.config_files import load, mistakes, write

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("in_tmp_path")


def test_every_mistake_at_once_each_at_its_line() -> None:
    text = """\
listen:
  sip: [{transport: ws, prt: 5060}]
  http: {port: 5060x}
  http: {port: 1}
  rtp_ports: 5000
trunks:
  o: {knid: sip}
  p:
    kind: sip
    allow: [127.0.0.1/8, nowhere]
    register: maybe
    srtp: preferred
    codecs: [g729]
limits:
  max_calls: 0
log: {level: warn}
engins: 4
store:
runtime_dir: 5
"""
    assert mistakes(text) == [
        "appliance.yaml:2: listen.sip.0.prt: unknown key; did you mean 'port'?",
        "appliance.yaml:2: listen.sip.0.transport: transport 'ws' is not available in this version; "
        "use udp, tcp or tls",
        "appliance.yaml:3: listen.http.port: must be a whole number, not '5060x'",
        "appliance.yaml:4: listen.http: is given twice; the first is on line 3; keep one",
        "appliance.yaml:5: listen.rtp_ports: '5000' is not a range of ports; write it as 16384-18383",
        "appliance.yaml:7: trunks.o.kind: is missing; add one, such as kind: sip or kind: twilio",
        "appliance.yaml:10: trunks.p.allow.0: '127.0.0.1/8' has bits set behind its prefix; did you mean 127.0.0.0/8?",
        "appliance.yaml:10: trunks.p.allow.1: 'nowhere' is not a network; "
        "write an address or a network such as 10.0.0.0/8",
        "appliance.yaml:11: trunks.p.register: must be true or false, not 'maybe'",
        "appliance.yaml:12: trunks.p.srtp: must be one of off, optional, required, not 'preferred'",
        "appliance.yaml:13: trunks.p.codecs.0: must be one of pcmu, pcma, g722, opus, not 'g729'; did you mean 'g722'?",
        "appliance.yaml:15: limits.max_calls: must be at least 1, not 0",
        "appliance.yaml:16: log.level: must be one of debug, info, warning, error, not 'warn'; did you mean 'warning'?",
        "appliance.yaml:17: engins: unknown key; did you mean 'engines'?",
        "appliance.yaml:18: store: has no value; it must be a mapping (key: value); give it one or remove the key",
        "appliance.yaml:19: runtime_dir: must be a path, not 5",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: [1\nb: 2\n",
            "2: syntax: expected ',' or ']', but got ':' while parsing a flow sequence that began on line 1",
        ),
        ("listen:\n\thttp: 1\n", "2: syntax: a tab is used for indentation; use spaces"),
        ("a: b: c\n", "1: syntax: a ':' where none can be; check the indentation, or put the text in quotes"),
        ("a: *x\n", "1: syntax: found undefined alias 'x'; define it with & above"),
        ("a: \x01\n", "1: file: holds a character that is not allowed in YAML"),
        ('a: "\\UFFFFFFFF"\n', "1: file: cannot be read as YAML"),
        ('log: {level: "\\ud800"}\n', "1: log.level: a \\u escape is half a character; write the character"),
        ("- 1\n", "1: file: must hold `key: value` lines; see docs/configuration.md"),
        ("log: {level: !env X}\n", "1: log.level: unknown tag !env; the only tag is !secret NAME"),
        ("? [a]\n: 1\n", "1: file: a key that is itself a list or mapping; quote the key"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "1: file: is nested too deeply"),
        ("[" * 600, "1: file: is nested too deeply"),
        ("a: &a [*a]\n", "1: file: is nested too deeply"),
    ],
)
def test_files_that_are_hardly_yaml(text: str, expected: str) -> None:
    found = mistakes(text)
    assert [line for line in found if line.startswith(f"appliance.yaml:{expected}")], found


def test_aliases_that_multiply_are_refused_quickly() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    assert "holds more than 100000 values; check for aliases that multiply" in mistakes(bomb)[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "appliance.yaml:1: file: cannot be read: no such file or directory; check its path"),
        (b"a: 1\nb: \xff\n", "appliance.yaml:2: file: is not UTF-8 text; save it as UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), f"appliance.yaml:1: file: is larger than {MAX_FILE_BYTES} bytes"),
    ],
    ids=["absent", "latin-1", "huge"],
)
def test_files_that_cannot_be_read(content: bytes | None, expected: str) -> None:
    path = Path("appliance.yaml")
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_settings(path, [])
    assert str(caught.value).startswith(expected)


def test_settings_that_do_not_fit_each_other() -> None:
    text = """\
listen:
  sip: [{port: 5060}, {port: 5060}, {port: 20000}]
  rtp_ports: 20000-20099
limits: {max_calls: 60}
trunks: {a: {kind: sip, allow: [10.0.0.1]}, b: {kind: sip, allow: [10.0.0.1]}}
"""
    assert mistakes(text) == [
        "appliance.yaml:2: listen.sip.1.port: 127.0.0.1:5060/udp is already listen.sip.0; choose another port",
        "appliance.yaml:2: listen.sip.2.port: 20000 is within listen.rtp_ports; choose a port outside of it",
        "appliance.yaml:3: listen.rtp_ports: has room for 50 calls, not for 60; "
        "make it 20000-20119, or lower limits.max_calls to 50",
        "appliance.yaml:5: trunks.b.allow.0: 10.0.0.1/32 also belongs to trunk 'a'; "
        "a source can only be of one trunk of kind sip",
    ]


def test_trunks_and_routes_that_do_not_fit_each_other() -> None:
    text = """\
listen:
  sip: [{transport: tls, port: 5061}, {port: 5060, cert: box.pem}, {transport: tcp, port: 8080}]
trunks:
  a: {kind: sip, register: true, proxy: sip:a.example}
  b: {kind: sip, auth: challenge, username: u, qualify_s: 30}
  c: {kind: sip, proxy: [sip:c1.example, "sip:c2.example;transport=tls"], tls: {cert: mine.pem}}
routes:
  - {to: "+49", trunks: [a, d]}
  - {trunks: b}
"""
    assert mistakes(text) == [
        "appliance.yaml:1: listen.http.port: 127.0.0.1:8080/tcp is already listen.sip.2; choose another port",
        "appliance.yaml:2: listen.sip.0: tls needs a certificate and its key; "
        "add cert: and key:, each the path of a PEM file",
        "appliance.yaml:2: listen.sip.1: udp has no certificate; remove cert and key, or set transport: tls",
        "appliance.yaml:2: listen.sip.1.cert: box.pem cannot be read: no such file or directory; check its path",
        "appliance.yaml:4: trunks.a.register: needs to know where, and as whom; add proxy: and username:",
        "appliance.yaml:5: trunks.b.auth: challenge needs something to check; add username: and password:",
        "appliance.yaml:5: trunks.b.qualify_s: there is nobody to ask; add proxy:",
        "appliance.yaml:6: trunks.c.tls: cert and key go together; add the other one",
        "appliance.yaml:6: trunks.c.tls.cert: mine.pem cannot be read: no such file or directory; check its path",
        "appliance.yaml:8: routes.0.trunks.0: trunk 'a' may dial no number; "
        "list what it may under trunks.a.allow_prefixes",
        "appliance.yaml:8: routes.0.trunks.1: there is no trunk 'd'; known: a, b, c",
        "appliance.yaml:9: routes.1.trunks.0: trunk 'b' cannot be called; add trunks.b.proxy",
    ]


@pytest.mark.parametrize(
    ("route", "prefixes", "region", "reported"),
    [
        ("to: '9', strip: 1", "['0']", "DE", True),
        ("to: '9', strip: 1", "['0', '90']", "DE", False),
        ("to: '+43'", "['+49', '0', '2']", "DE", True),
        ("to: ['+43', '+491']", "['+49', '0', '2']", "DE", False),
        ("to: '0043'", "['+43']", "DE", False),
        ("to: '43'", "['+43']", "", True),
        ("to: '*'", "['+43']", "", False),
        ("to: '+43'", "['*']", "DE", False),
        ("to: '+4(3)*'", "['+431*']", "", False),
        ("to: alice", "['+43', '2', bob]", "", True),
        ("to: alice", "['al*']", "", False),
        ("to: '44', prepend: '+'", "['44']", "", True),
        ("to: '44', prepend: '+'", "['44', '+44']", "", False),
        ("to: '44', prepend: '+'", "['44']", "GB", False),
        ("prepend: '+'", "['44']", "", False),
    ],
)
def test_a_route_by_which_nothing_can_be_dialled(route: str, prefixes: str, region: str, reported: bool) -> None:
    known = f", region: {region}" if region else ""
    trunk = f"kind: sip, proxy: 'sip:a', allow_prefixes: {prefixes}{known}"
    text = f"trunks: {{a: {{{trunk}}}, b: {{{trunk}}}}}\nroutes:\n  - {{{route}, trunks: [a, b]}}\n"
    if not reported:
        load(text)
        return
    (found,) = mistakes(text)
    what = "no number of this route may be dialled: its trunks' allow_prefixes list none"
    assert found.startswith(
        f"appliance.yaml:3: routes.0.to: {what}; list their beginning under trunks.a.allow_prefixes"
    )


def test_a_route_is_judged_by_all_of_its_trunks() -> None:
    text = """\
trunks:
  abroad: {kind: sip, proxy: 'sip:a', allow_prefixes: ['+43']}
  home: {kind: sip, proxy: 'sip:a', allow_prefixes: ['+49']}
routes: [{to: '+49', trunks: [abroad, home]}]
"""
    load(text)
    assert len(mistakes(text.replace("abroad, home", "abroad"))) == 1


@pytest.mark.parametrize(
    ("trunk", "expected"),
    [
        ("proxy: pbx.example", "proxy: 'pbx.example' is not a SIP URI; write it as sip:host, sip:host:port or"),
        ("proxy: 'sip:a@'", "proxy: 'sip:a@' is not a SIP URI; write it as sip:host"),
        ("proxy: 'sip:;transport=tls'", "proxy: 'sip:;transport=tls' is not a SIP URI; write it as sip:host"),
        ("proxy: 'sip:host;;x'", "proxy: 'sip:host;;x' is not a SIP URI; write it as sip:host"),
        ("proxy: 'sip:exa$mple'", "proxy: 'sip:exa$mple' is not a SIP URI; write it as sip:host"),
        ("proxy: 'sip:[::1'", "proxy: 'sip:[::1' is not a SIP URI; write it as sip:host"),
        ("proxy: 'sip:[::x]'", "proxy: '[::x]' is not an IPv6 address; write it as sip:[2001:db8::1]"),
        ("proxy: 'sip:host:'", "proxy: '' is not a port; write one from 1 to 65535"),
        ("proxy: 'sip:a;Transport=sctp'", "proxy: 'sctp' is not a SIP transport; write transport=udp"),
        ("proxy: 'sip:a;transport=sctp'", "proxy: 'sctp' is not a SIP transport; write transport=udp"),
        ("ptime_ms: 25", "ptime_ms: must be 10, 20, 30, 40, 50 or 60, not 25"),
        ("session_timer_s: 30", "session_timer_s: must be 0 (off) or at least 90, not 30; 1800 is usual"),
        ("allow_prefixes: ['+49*1']", "allow_prefixes.0: '+49*1' is not the beginning of a number"),
        ("region: Germany", "region: 'Germany' is not a country; write its two capitals as in ISO 3166, such as DE"),
        ("region: UK", "region: 'UK' is not a country; write GB"),
        ("allow_prefixes: '0'", "allow_prefixes: '0' lets numbers without a country code be dialled"),
        ("proxy: 'sip:pbx:99999'", "proxy: '99999' is not a port; write one from 1 to 65535"),
        ("headers_out: {X-A: '${caller.nr}'}", "headers_out.X-A: ${caller.nr} stands for nothing; known: call.id,"),
        ("headers_out: {Via: x}", "headers_out.Via: 'Via' is written by the protocol itself; leave it out"),
        ("headers_in: ['X Account']", "headers_in.0: 'X Account' is not the name of a header; write it as X-Account"),
        (r'headers_out: {X-A: "a\r\nb"}', "headers_out.X-A: holds a line break or a control character"),
        ("allow_kinds: [adult]", "allow_kinds.0: must be one of premium, emergency, shared_cost, satellite"),
    ],
)
def test_what_a_trunk_is_told_about_its_values(trunk: str, expected: str) -> None:
    assert mistakes(f"trunks: {{p: {{kind: sip, {trunk}}}}}")[0].startswith(f"appliance.yaml:1: trunks.p.{expected}")


def test_a_trunk_dials_nothing_and_transfers_nothing_unless_told() -> None:
    trunk = load("trunks: {p: {kind: sip, proxy: sip:10.0.0.1}}").trunks["p"]
    assert (trunk.allow_prefixes, trunk.allow_kinds, trunk.allow_transfer, trunk.srtp) == ((), (), False, "off")
    assert trunk.proxy == ("sip:10.0.0.1",)


def test_certificates_lie_beside_the_configuration() -> None:
    write("x", "etc/hold.wav")
    authority = Authority(Path("etc"), "ca")
    pair = authority.issue("box.example")
    pair.cert.rename("etc/c.pem")
    pair.key.rename("etc/k.pem")
    text = """\
listen: {sip: [{transport: tls, cert: c.pem, key: k.pem}]}
trunks: {p: {kind: sip, proxy: "sip:a;transport=tls", tls: {ca: ca.pem}}}
media: {hold_music: hold.wav}
"""
    box = load_settings(write(text, "etc/appliance.yaml"), [], environ={})
    assert (box.listen.sip[0].cert, box.listen.sip[0].key) == (Path("etc/c.pem"), Path("etc/k.pem"))
    assert (box.trunks["p"].tls.ca, box.media.hold_music) == (Path("etc/ca.pem"), Path("etc/hold.wav"))
    assert Settings.model_validate_json(box.dump_json()) == box


def test_certificates_that_are_none() -> None:
    for name in ("ca.pem", "c.pem", "k.pem"):
        write("x", name)
    text = """\
listen: {sip: [{transport: tls, cert: c.pem, key: k.pem}]}
trunks: {p: {kind: sip, proxy: "sip:a;transport=tls", tls: {ca: ca.pem}}}
"""
    assert mistakes(text) == [
        "appliance.yaml:1: listen.sip.0.cert: c.pem and k.pem are not a certificate and its key: no pem data; "
        "both are PEM files; the key is without a passphrase",
        "appliance.yaml:2: trunks.p.tls.ca: ca.pem holds no certificates: no certificate or crl found; "
        "name a PEM file of the authorities trusted",
    ]


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("{rtp_host: 0.0.0.0}", "listen.rtp_host: peers cannot be told 0.0.0.0 as the address of the audio; set"),
        ("{sip: [{host: 0.0.0.0}]}", "listen.rtp_host: is 127.0.0.1, which peers that call 0.0.0.0 cannot reach; set"),
        ("{advertised: box.example}", "listen.advertised: 'box.example' is not an address that peers can reach; write"),
        ("{sip: [{host: '10.0.0.1:5060'}]}", "listen.sip.0.host: '10.0.0.1:5060' is not an address; write a host or"),
    ],
)
def test_addresses_that_peers_could_not_use(listen: str, expected: str) -> None:
    assert mistakes(f"listen: {listen}")[0].startswith(f"appliance.yaml:1: {expected}")


def test_a_list_that_was_written_as_a_mapping() -> None:
    assert mistakes("routes: {to: '+49', trunks: a}") == [
        "appliance.yaml:1: routes: must be a list, not a mapping; begin each entry with '- '"
    ]


def test_a_box_that_could_say_nothing() -> None:
    assert mistakes("engines: {tts: {provider: none}}") == [
        "appliance.yaml:1: engines.tts.provider: is none: nothing could be said; set one, espeak for instance"
    ]


def test_a_mistake_found_later_still_has_its_line() -> None:
    box = load("engines:\n  asr:\n    provider: fake\n    dealy_ms: 5\n", "log.level=debug")
    assert str(box.mistake("engines.asr.dealy_ms", "unknown option", "did you mean 'delay_ms'?")) == (
        "appliance.yaml:4: engines.asr.dealy_ms: unknown option; did you mean 'delay_ms'?"
    )
    assert box.mistake("log.level", "x").file == "--set"
    assert Settings.model_validate_json(box.dump_json()).mistake("log.level", "x").file == "appliance.yaml"
