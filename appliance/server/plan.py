"""The core plan: which process may run where, and how important it is. PURE."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Final

from appliance.config import Settings
from appliance.config.load import SECRET_VARIABLE

ENGINE_KINDS: Final = ("asr", "tts", "turn", "llm", "speech")
WORKER_MODULE: Final = "appliance.engines.worker"
PLUGIN_MODULE: Final = "appliance.plugins.host"
_ONE_AT_A_TIME: Final = frozenset({"pocketsphinx"})


@dataclass(frozen=True)
class ProcessSpec:
    """One supervised process.

    ``module`` is run with ``python -m``; ``rings`` tells whether it maps the calls' audio, ``settings`` whether it may
    read the box's settings with all their secrets, ``kept`` whether it is given what it kept before a restart.
    ``on_demand``: it is started when control asks for it. ``cores`` is None where it may run anywhere.
    ``idle``: it only gets what the others leave (SCHED_IDLE); it sets that itself.
    After ``silent_limit_s`` without a sign of life it is killed.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    rings: bool = True
    settings: bool = True
    kept: bool = False
    on_demand: bool = False
    cores: frozenset[int] | None = None
    idle: bool = False
    silent_limit_s: float = 20.0


def media_core(cores: frozenset[int], settings: Settings) -> int | None:
    """The core the audio clock lives on: as configured, else the last one; None on a box with a single core."""
    if settings.media.core is not None:
        return settings.media.core
    return max(cores) if len(cores) > 1 else None


def plan(cores: frozenset[int], settings: Settings) -> list[ProcessSpec]:
    """Every process of the box.

    The media process has a core that control and the recorder keep off. Engines run on all cores at idle priority:
    the kernel takes the core from them the moment the audio clock wakes, and a speech model on one core alone would
    make every caller wait.
    """
    audio = media_core(cores, settings)
    others = cores - {audio} if audio is not None else cores
    specs = [
        ProcessSpec("media", "appliance.media.process", cores=frozenset({audio}) if audio is not None else None),
        ProcessSpec("recorder", "appliance.store.process", cores=others),
    ]
    for kind in ENGINE_KINDS:
        if settings.engines.of(kind).provider == "none":
            continue
        specs += _workers(kind, "", cores, settings)
    for kind, name in settings.engines.all_named():
        specs += _workers(kind, name, cores, settings)
    specs.append(
        ProcessSpec(
            "plugins",
            PLUGIN_MODULE,
            _plugin_arguments(settings),
            rings=False,
            settings=False,
            on_demand=True,
            cores=others,
            # Control is the first to see it hang, and knows whose fault it is.
            silent_limit_s=30.0,
        )
    )
    workers = [spec.name for spec in specs if spec.module == WORKER_MODULE]
    # Control may be slow and yet alive; killing it ends every call, so it is given much longer.
    specs.append(
        ProcessSpec(
            "control",
            "appliance.server.control",
            ("--workers", ",".join(workers)),
            kept=True,
            cores=others,
            silent_limit_s=120.0,
        )
    )
    return specs


def pool_name(kind: str, name: str) -> str:
    """What the workers of an engine are called, before their number: ``llm``, or ``llm.clever`` of one with a name."""
    return f"{kind}.{name}" if name else kind


def pool_of(worker: str) -> str:
    """The :func:`pool_name` of a worker."""
    return worker.rpartition("-")[0]


def worker_names(kind: str, settings: Settings, core_count: int, name: str = "") -> list[str]:
    """Names of the workers of an engine: as many as configured, else one that serves all calls together; of an engine
    that takes one request at a time, one per core up to four. ``name`` is the engine's, "" for the one of all lines."""
    engine = settings.engines.of(kind, name)
    count = engine.workers or (min(core_count, 4) if engine.provider in _ONE_AT_A_TIME else 1)
    return [f"{pool_name(kind, name)}-{number}" for number in range(count)]


def _workers(kind: str, name: str, cores: frozenset[int], settings: Settings) -> list[ProcessSpec]:
    engine = ("--kind", kind, "--engine", name) if name else ("--kind", kind)
    return [
        ProcessSpec(worker, WORKER_MODULE, ("--name", worker, *engine), cores=cores, idle=True)
        for worker in worker_names(kind, settings, len(cores), name)
    ]


def _plugin_arguments(settings: Settings) -> tuple[str, ...]:
    plugins = settings.plugins
    chosen: dict[str, object] = {
        "--memory-mb": plugins.memory_mb,
        "--runtime-dir": settings.runtime_dir.absolute(),
        "--state-dir": settings.state_dir.absolute(),
        "--hang-s": plugins.hang_s,
        "--log-level": settings.log.level,
    }
    if settings.egress is not None:
        chosen["--egress"] = json.dumps(settings.egress)
    return tuple(str(word) for pair in chosen.items() for word in pair)


def child_environment(environment: dict[str, str], *, secrets: bool = True) -> dict[str, str]:
    """``secrets``: whether the child may see what ``!secret`` looks up in the environment.

    One thread for every numeric library: the processes themselves are the parallelism. Few malloc arenas: with one
    for every thread, memory that one frees is of no use to the next."""
    capped = {name: value for name, value in environment.items() if secrets or not name.startswith(SECRET_VARIABLE)}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        capped[name] = "1"
    capped["PYTHONUNBUFFERED"] = "1"
    capped.setdefault("MALLOC_ARENA_MAX", "2")
    return capped


def command(spec: ProcessSpec, settings_fd: int, rings_fd: int, capacity: int, kept_fd: int) -> list[str]:
    """The command line of a child."""
    line = [sys.executable, "-m", spec.module, *spec.arguments]
    if spec.settings:
        line += ["--settings-fd", str(settings_fd)]
    if spec.rings:
        line += ["--rings-fd", str(rings_fd), "--capacity", str(capacity)]
    if spec.kept:
        line += ["--kept-fd", str(kept_fd)]
    return line
