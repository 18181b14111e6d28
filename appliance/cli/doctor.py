"""``appliance doctor``: what on this machine would keep the box from working, and how to put it right."""

from __future__ import annotations

import argparse
import asyncio
import enum
import importlib.util
import json
import os
import platform
import resource
import shutil
import socket
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.errors import ConfigError, EngineError
from appliance.models.catalogue import MODEL_FILES, PACKAGED_MODELS
from appliance.models.store import ModelStore, check_packaged, model_directory

if TYPE_CHECKING:
    from appliance.config import Settings
    from appliance.engines.openai_llm import OpenAiLlm

    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_LIBRARIES: Final = (
    ("aiohttp", "aiohttp"),
    ("aiosqlite", "aiosqlite"),
    ("alembic", "alembic"),
    ("charset-normalizer", "charset_normalizer"),
    ("dnspython", "dns"),
    ("espeakng-loader", "espeakng_loader"),
    ("G722", "G722"),
    ("google-re2", "re2"),
    ("holidays", "holidays"),
    ("jsonschema", "jsonschema"),
    ("msgspec", "msgspec"),
    ("numpy", "numpy"),
    ("onnxruntime", "onnxruntime"),
    ("opuslib-next-bundled", "opuslib_next"),
    ("phonenumbers", "phonenumbers"),
    ("pluggy", "pluggy"),
    ("pocketsphinx", "pocketsphinx"),
    ("prometheus-client", "prometheus_client"),
    ("pydantic", "pydantic"),
    ("pylibsrtp", "pylibsrtp"),
    ("PyYAML", "yaml"),
    ("soxr", "soxr"),
    ("SQLAlchemy", "sqlalchemy"),
    ("uvloop", "uvloop"),
    ("webrtc-noise-gain", "webrtc_noise_gain"),
)
_FILES_PER_CALL: Final = 4
_FILES_BESIDE_CALLS: Final = 256
_STEREO_BYTES_PER_S: Final = 2 * 2 * 8000
_DISK_WANTED_BYTES: Final = 2 << 30
_SLOW_TOKEN_S: Final = 0.5


class Verdict(enum.StrEnum):
    """``WARNING``: the box works, but not as well as it could. ``PROBLEM``: it will not work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. ``remedy`` is empty where nothing is wrong."""

    what: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<8} {self.what:<16} {self.detail}"
        return f"{line}\n{'':<26}-> {self.remedy}" if self.remedy else line


def add_parser(subparsers: Subparsers) -> None:
    """Add ``doctor`` to the main command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="look for what would keep the box from working here",
        description=__doc__,
        epilog="Exit status 1 when there is a problem; warnings do not count.",
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="the configuration to look at")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print every finding; 1 if one of them is a problem."""
    findings = examine(args.config, args.set)
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(finding)
    return 1 if any(finding.verdict is Verdict.PROBLEM for finding in findings) else 0


def examine(config: Path | None, overrides: list[str]) -> list[Finding]:
    """Look at everything. What needs the settings is left out where they can't be read."""
    findings = [python(), *libraries(), processors(), scheduling()]
    try:
        settings = _settings(config, overrides)
    except ModuleNotFoundError:
        return [*findings, *models()]
    except ConfigError as error:
        remedy = "appliance check says more"
        return [
            *findings,
            *models(),
            *(Finding("configuration", Verdict.PROBLEM, str(m), remedy) for m in error.mistakes),
        ]
    findings.append(Finding("configuration", Verdict.OK, str(config or "the embedded default")))
    findings += models(settings.models_dir)
    findings += sockets(_sockets_of(settings))
    findings += [
        writable("runtime folder", Path(settings.runtime_dir)),
        writable("recordings", Path(settings.store.recordings)),
        disk(Path(settings.store.recordings)),
        open_files(settings.limits.max_calls),
        *language_models(settings),
        *synthesisers(settings),
    ]
    return findings


def _settings(config: Path | None, overrides: list[str]) -> Settings:
    from appliance.config import load_settings

    return load_settings(config, overrides)


def python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if platform.system() != "Linux":
        return Finding("python", Verdict.PROBLEM, detail, "the box runs on Linux (memfd, SOCK_SEQPACKET, scheduling)")
    return Finding("python", Verdict.OK, detail)


def libraries() -> Iterable[Finding]:
    """One finding for all that are there, one for each that is not."""
    there: list[str] = []
    for distribution, module in _LIBRARIES:
        if importlib.util.find_spec(module) is None:
            yield Finding(distribution, Verdict.PROBLEM, "is not installed", "run `make setup` or `pip install -e .`")
            continue
        try:
            there.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:
            there.append(distribution)
    yield Finding("libraries", Verdict.OK, ", ".join(there))


def models(directory: Path | None = None) -> Iterable[Finding]:
    store = ModelStore(model_directory(directory))
    for check in [*map(store.check, MODEL_FILES), *map(check_packaged, PACKAGED_MODELS)]:
        if check.usable:
            yield Finding(check.name, Verdict.OK, str(check.path or check.state.value))
        else:
            yield Finding(check.name, Verdict.PROBLEM, check.state.value, check.detail or "run `appliance models pull`")


def processors() -> Finding:
    allowed = len(os.sched_getaffinity(0))
    detail = f"{allowed} of {os.cpu_count()} cores may be used"
    if allowed < 2:
        return Finding("processors", Verdict.WARNING, detail, "give it two cores: audio on one, models on the other")
    return Finding("processors", Verdict.OK, detail)


def scheduling() -> Finding:
    """Whether media may be put before other programs; that models may be put behind them is always so."""
    soft_nice = resource.getrlimit(resource.RLIMIT_NICE)[0]
    effective = next(
        (
            int(line.split()[1], 16)
            for line in Path("/proc/self/status").read_text().splitlines()
            if line[:7] == "CapEff:"
        ),
        0,
    )
    if effective & (1 << 23) or soft_nice >= 30:
        return Finding("scheduling", Verdict.OK, "audio can be put before other programs")
    return Finding(
        "scheduling",
        Verdict.WARNING,
        "audio has the same priority as other programs",
        "on a machine that does other work too, allow CAP_SYS_NICE or LimitNICE=-15 (systemd/appliance.service does)",
    )


def _sockets_of(settings: Settings) -> list[tuple[str, socket.SocketKind, str, int]]:
    found = [(f"sip {one.transport}", _kind(one.transport), one.host, one.port) for one in settings.listen.sip]
    http = settings.listen.http
    return [*found, ("http", socket.SOCK_STREAM, http.host, http.port)]


def _kind(transport: str) -> socket.SocketKind:
    return socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM


def sockets(wanted: Iterable[tuple[str, socket.SocketKind, str, int]]) -> Iterable[Finding]:
    """Whether each (name, kind, host, port) can be bound now."""
    for name, kind, host, port in wanted:
        address = f"{host}:{port}"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                hint = f"stop what has it (`ss -lnp 'sport = :{port}'`), or set another port under listen:"
                yield Finding(name, Verdict.PROBLEM, f"{address}: {error.strerror}", hint)
            else:
                yield Finding(name, Verdict.OK, f"{address} is free")


def writable(name: str, folder: Path) -> Finding:
    existing = _nearest(folder)
    if os.access(existing, os.W_OK | os.X_OK) and existing.is_dir():
        return Finding(name, Verdict.OK, f"{folder} can be written")
    return Finding(name, Verdict.PROBLEM, f"{folder} cannot be written", f"give this user write access to {existing}")


def disk(folder: Path, usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage) -> Finding:
    """Free space for recordings; ``usage`` gives (total, used, free) bytes."""
    free = usage(_nearest(folder))[2]
    detail = f"{free / 1e9:.1f} GB free, {free / _STEREO_BYTES_PER_S / 3600:.0f} hours of calls"
    if free < _DISK_WANTED_BYTES:
        return Finding("disk", Verdict.WARNING, detail, f"make room below {folder}, or lower store.retention_days")
    return Finding("disk", Verdict.OK, detail)


def open_files(max_calls: int) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_calls * _FILES_PER_CALL + _FILES_BESIDE_CALLS
    detail = f"{soft} open files a process, {wanted} wanted for {max_calls} calls"
    if soft >= wanted:
        return Finding("open files", Verdict.OK, detail)
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        return Finding("open files", Verdict.WARNING, detail, f"start it after `ulimit -n {wanted}`")
    return Finding(
        "open files", Verdict.PROBLEM, detail, f"raise the hard limit to {wanted}, or lower limits.max_calls"
    )


def language_models(settings: Settings) -> Iterable[Finding]:
    """A token of every model that is asked over the network."""
    from appliance.engines.builtin import provider_registry
    from appliance.engines.openai_llm import OpenAiLlm
    from appliance.engines.openai_llm_options import OpenAiLlmOptions

    llm = settings.engines.llm
    if llm.provider != "openai_compatible":
        return
    mistakes = provider_registry().validate_options("llm", llm.provider, llm.options)
    if mistakes:
        yield Finding("language model", Verdict.PROBLEM, mistakes[0], "appliance check says more")
        return
    yield from asyncio.run(_first_tokens(OpenAiLlm(OpenAiLlmOptions.model_validate(llm.options))))


def synthesisers(settings: Settings) -> Iterable[Finding]:
    """A sentence of whoever speaks."""
    from appliance.cli.doctor_speech import spoken

    for what, detail, remedy, works in spoken(settings):
        verdict = Verdict.OK if not remedy else Verdict.WARNING if works else Verdict.PROBLEM
        yield Finding(what, verdict, detail, remedy)


async def _first_tokens(engine: OpenAiLlm) -> list[Finding]:
    found = []
    try:
        await engine.load()
        for server in engine.servers:
            try:
                took_s = await server.first_token_s()
            except EngineError as fault:
                what, _, hint = f"{server.name} {fault}".rpartition("; ")
                found.append(
                    Finding("language model", Verdict.PROBLEM, what or hint, hint if what else "see docs/llm.md")
                )
                continue
            detail = f"{server.name}: first token after {took_s:.2f} s"
            if took_s < _SLOW_TOKEN_S:
                found.append(Finding("language model", Verdict.OK, detail))
            else:
                remedy = "callers notice waits above half a second: a smaller model, a faster server, a nearer one"
                found.append(Finding("language model", Verdict.WARNING, detail, remedy))
    except EngineError as error:
        found.append(Finding("language model", Verdict.PROBLEM, str(error), "see docs/llm.md"))
    finally:
        await engine.close()
    return found


def _nearest(folder: Path) -> Path:
    """``folder`` or the closest parent that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
