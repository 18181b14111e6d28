"""The plugin manual: every hook the appliance calls, in the order of a call's life.

A plugin implements a hook with ``appliance.api.hookimpl``. Built-in engines are registered through the same plugin
manager (``appliance/engines/builtin.py``) and get no other treatment.

Each hook says when it runs and in which process, how long it may take, what becomes of the result, and what an
exception does.

Provider hooks
--------------
An *engine kind* (denoise, vad, turn, asr, llm, tts, speech) is served by the provider that ``engines.<kind>.provider``
names. A provider hook returns the providers a plugin offers, by that name.

* When: once per process that needs the list, at start, before any call: the engine workers, and ``appliance check``.
* Budget: 100 ms. Import nothing heavy and load no model in the hook; do it in the provider's factory, which runs in
  the engine's worker process only, or in the engine's ``load``.
* Result: the mappings of all plugins are merged. A name that another plugin has taken first is refused, with a
  message naming both; built-in names come first and cannot be replaced.
* Exception: the plugin's providers of that kind are left out and the fact is logged; the appliance starts. If the
  settings name one of them, ``appliance check`` and the worker say so and the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pluggy
from pydantic import BaseModel, ConfigDict

PROJECT: Final = "appliance"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ProviderOptions(BaseModel):
    """Base of a provider's options: unknown keys are mistakes, values do not change, bare numbers are text if wanted.

    What an operator writes as ``!secret NAME`` comes as a ``pydantic.SecretStr``, and no message shows it. A validator
    that raises ``ValueError("is no such thing; write it as this")`` is reported at the key, with the line in the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


class Resources(Protocol):
    """What the appliance hands to a factory."""

    def model(self, name: str) -> bytes:
        """The content of the model file ``name`` (``appliance models list``), checked.

        Raises:
            ModelFileError: it is missing or corrupt; says how to get it.
        """
        ...

    def folder(self, name: str) -> Path:
        """Where a model of several files is, which may not exist: ``name`` itself where that is a folder, else the
        folder of that name in the model directory."""
        ...


@dataclass(frozen=True)
class Provider:
    """One way to serve an engine kind, or the calls of a kind of trunk.

    Attributes:
        factory: makes the engine from validated options (an instance of ``options``) and :class:`Resources`, or the
            carrier of one trunk from its options and an ``appliance.api.CarrierBox``; may import and load what it
            needs. Anything it raises keeps the process from starting, with the message shown.
        summary: one line for ``appliance plugins list``.
        options: the schema of ``engines.<kind>`` beside ``provider``; of a trunk, that of its own keys.
        models: model files the factory reads, for ``appliance doctor`` and ``make demo``.
        partials: of a recogniser: it can say what was heard so far while the caller still speaks; or a function of
            its options that says so.
        levelled: of a synthesiser: its speech is at -20 dBFS and begins and ends without silence, and is left so.
        exact: of a synthesiser: nothing is done to its audio, and none of it is kept for the next time.
    """

    factory: Callable[[Any, Any], Any]
    summary: str
    options: type[ProviderOptions] = ProviderOptions
    models: tuple[str, ...] = ()
    partials: bool | Callable[[Any], bool] = False
    levelled: bool = False
    exact: bool = False


Providers = Mapping[str, Provider]


@dataclass(frozen=True)
class IdentityClaim:
    """What an Identity header claims of a call (RFC 8224). All of it comes from the peer; nothing has been checked.

    Attributes:
        token: the whole signed text, ``header.claims.signature``.
        certificate: URL of the signer's certificate.
        attest: "A", "B", "C", or "" where it is not given.
        origin: the number signed for.
        destinations: the numbers signed for as called.
        issued_at: seconds since 1970.
        calling: the number the call came from.
        called: the number it was sent to.
    """

    token: str
    certificate: str
    attest: str
    origin: str
    destinations: tuple[str, ...]
    issued_at: int
    calling: str
    called: str


@hookspec
def appliance_denoise_providers() -> Providers | None:
    """Who can take noise off what callers say, before the voice detector hears it.

    The factory is called in the media process once, before any call; it returns an ``appliance.api.Suppression``, or
    None for none. Its ``open`` is called as a call begins, and what that returns once every 20 ms of the call, beside
    the audio of all others: in C, within 50 us a frame, or for few lines at a time (``most_lines``). Lines choose by
    name: ``webrtc``, ``rnnoise`` or ``off``.
    """


@hookspec
def appliance_vad_providers() -> Providers | None:
    """Who can tell speech from noise, for all calls in one batch, every 20 ms.

    No plugin code runs beside the audio: the factory is called in the media process once, before any call, and
    returns the bytes of an ONNX model, or None for levels alone. The model's inputs are ``input`` float32 [n, 288]
    (32 samples of context and 256 new ones at 8 kHz), ``state`` float32 [2, n, 128] and ``sr`` int64; its outputs
    ``output`` [n, 1] and ``stateN`` [2, n, 128].
    """


@hookspec
def appliance_turn_providers() -> Providers | None:
    """Who can judge from the sound whether a caller has finished.

    The factory returns an ``appliance.api.Engine``; its ``run`` gets ``JudgeTurnRequest`` and answers each with
    ``context.verdict``. It is asked about 100 ms after the caller falls silent; an answer after the request's
    deadline (CLOCK_MONOTONIC seconds) is of no use.
    """


@hookspec
def appliance_asr_providers() -> Providers | None:
    """Who can write down what a caller said.

    The factory returns an ``appliance.api.Engine``; its ``run`` gets ``RecogniseRequest`` and answers each with
    ``context.recognised``.
    """


@hookspec
def appliance_llm_providers() -> Providers | None:
    """Who can say what to reply.

    The factory returns an ``appliance.api.Engine``; its ``run`` gets ``GenerateRequest`` and answers each with any
    number of ``context.token``, the last of them with ``last=True``.
    """


@hookspec
def appliance_tts_providers() -> Providers | None:
    """Who can speak.

    The factory returns an ``appliance.api.Engine``; its ``run`` gets ``SynthesiseRequest`` and answers each with any
    number of ``context.speak`` (int16 samples at 8 kHz), the last of them with ``last=True``.
    """


@hookspec
def appliance_speech_providers() -> Providers | None:
    """Who can converse: audio in, audio out.

    The factory returns an ``appliance.api.Engine``; its ``run`` gets one ``ConverseRequest``, takes ``context.talk`` of
    it, and holds the conversation until it is cancelled. What it raises ends the conversation; the box may begin
    another in the same call, with what was said so far.
    """


@hookspec
def appliance_stream_providers() -> Mapping[str, Any] | None:
    """Whose audio streams can be read: by the kind of trunk, an ``appliance.api.StreamKind``.

    * When: once in the media process, at start, and in ``appliance check``.
    * Its ``open`` and the protocol that it makes run beside the audio of all calls, in the media process: they are PURE
      and quick, or every call stutters. Nothing else of a carrier runs there.
    """


@hookspec
def appliance_carrier_providers() -> Providers | None:
    """Whose calls can be taken and placed: the kinds of trunk beside ``sip``.

    * When: once in the control process, at start, and in ``appliance check``.
    * The factory is called once for each trunk of the kind, with the trunk's options and an
      ``appliance.api.CarrierBox``; it returns an ``appliance.api.Carrier``. The options are the keys of the trunk that
      are not those of every trunk.
    * A kind needs both hooks: this one for the calls, ``appliance_stream_providers`` for their audio.
    """


@hookspec(firstresult=True)
def appliance_verify_identity(claim: IdentityClaim) -> str | None:
    """Is the caller who the Identity header says?

    * When: an INVITE with an Identity header has come, in the control process, before a line is chosen.
    * Budget: 5 ms, since signalling waits. Fetch and keep certificates elsewhere; what is not at hand has no verdict.
    * Result: the first that is not None is the call's ``verstat``, in place of the network's own:
      "TN-Validation-Passed", "TN-Validation-Failed" or "No-TN-Validation". Lines match on it (``match.verstat``).
    * Exception: logged; the network's own verdict stands.
    """
