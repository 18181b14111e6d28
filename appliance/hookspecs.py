"""The plugin manual: every hook the appliance calls, in the order of a call's life.

A plugin implements a hook with ``appliance.api.hookimpl``, as a plain or an ``async`` function, and names only those
arguments that it wants. A hook that a plugin does not have costs nothing.

Each hook says when it runs, how long it may take (the budget, of one plugin), what becomes of the results, what a
failure does, and in which process it runs. The four rules for results:

* *first*: plugins are asked in the order in which they are enabled, and the first result that is not None counts.
* *collected*: the results of all plugins count, in that order.
* *chained*: each plugin gets what the one before it returned; None leaves it as it is.
* *told*: nobody waits, and what is returned is of no interest. What a plugin is told of one call, it is told in order.

A failure is an exception, a result of another type, or a plugin that is over its budget: it is given up, the others
still run, and the call goes on with the hook's default. Five failures of a plugin's hook on a line within a minute
switch this hook off on this line for a minute. Plain functions run in threads, so they may wait; an ``async`` function
that computes or waits without ``await`` holds up all plugins, and a plugin host that stands still is killed, blamed on
the plugin that ran, and started again.

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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pluggy
from pydantic import BaseModel, ConfigDict

from appliance.hook_types import (
    Blocked,
    Box,
    Call,
    CallSummary,
    CampaignEvent,
    Command,
    Denied,
    ModelRequest,
    Refusal,
    Route,
)
from appliance.tool_types import Tool

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
        voice_problem: of a synthesiser: what is wrong with a line's voice, as ``what is wrong; what would be right``,
            "" if nothing; given its options, the voice's name ("" for none) and the language. For ``appliance check``:
            it loads no model.
    """

    factory: Callable[[Any, Any], Any]
    summary: str
    options: type[ProviderOptions] = ProviderOptions
    models: tuple[str, ...] = ()
    partials: bool | Callable[[Any], bool] = False
    levelled: bool = False
    exact: bool = False
    voice_problem: Callable[[Any, str, str], str] | None = None


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


# --- the box ------------------------------------------------------------------------------------------------------


@hookspec
def appliance_configure(values: Any, line: str) -> None:
    """The plugin's values, for the box and for each line that has values of its own.

    ``values`` is an instance of the plugin's ``Values``, already validated, or None; ``line`` is "" for the box.

    * When: the plugin host starts, or the values have changed; before any other hook of that line.
    * Budget: 10 s.
    * Result: told; the host waits.
    * Failure: the plugin is off on that line (for the box: everywhere), and the reason is shown.
    * Process: the plugin host.
    """


@hookspec
def appliance_started(box: Box) -> None:
    """The box takes calls from now on. Open connections and start background tasks here.

    * When: once after ``configure``, and again in a plugin host that was restarted.
    * Budget: 10 s.
    * Result: told; the host waits.
    * Failure: logged; the plugin's other hooks run.
    * Process: the plugin host.
    """


@hookspec
def appliance_stopping() -> None:
    """The box stops. Close what was opened; no hook follows.

    * When: once; not where the plugin host is killed.
    * Budget: 3 s.
    * Result: told; the host waits.
    * Failure: logged.
    * Process: the plugin host.
    """


# --- a call comes in ----------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def appliance_verify_identity(call: Call, claim: IdentityClaim) -> str | None:
    """Is the caller who the Identity header says?

    The verdict is the call's ``verstat``, in place of the network's own: "TN-Validation-Passed",
    "TN-Validation-Failed" or "No-TN-Validation". Lines match on it (``match.verstat``). Fetch and keep certificates
    elsewhere; what is not at hand has no verdict.

    * When: an INVITE with an Identity header has come, before ``admit``.
    * Budget: 50 ms.
    * Result: first.
    * Failure: the network's own verdict stands.
    * Process: the plugin host.
    """


@hookspec(firstresult=True)
def appliance_admit(call: Call) -> Refusal | None:
    """Is the call taken at all?

    * When: a call has come and there is room for it; no line has been chosen. Only plugins that are enabled for the
      whole box are asked.
    * Budget: 100 ms; the caller hears nothing yet.
    * Result: first. A ``Refusal`` turns the call away.
    * Failure: the call is taken.
    * Process: the plugin host.
    """


@hookspec(firstresult=True)
def appliance_route(call: Call) -> str | None:
    """Which line answers?

    * When: after ``admit``. Only plugins that are enabled for the whole box are asked.
    * Budget: 100 ms; the caller hears nothing yet.
    * Result: first: the name of a line, which then answers whatever its ``match`` says. None leaves it to the dialplan.
    * Failure: the dialplan chooses; so it does where there is no line of that name.
    * Process: the plugin host.
    """


@hookspec
def appliance_tools(call: Call) -> Sequence[Tool] | None:
    """What may the model of this line do, beside the tools that the line has?

    The tools run in the plugin host, too; ``Tool.run`` may be a plain function.

    * When: a call rings on a line with a language model, once.
    * Budget: 100 ms.
    * Result: collected. The first tool of a name has it; a tool that cannot be offered is left out, and logged.
    * Failure: the call goes on without the plugin's tools.
    * Process: the plugin host.
    """


@hookspec
def appliance_answered(call: Call) -> None:
    """The call has been answered. What later hooks need of a slow server can be fetched now, into ``call.state``.

    * When: the box has answered, before the greeting.
    * Budget: 5 s.
    * Result: told.
    * Failure: noted in the call's record.
    * Process: the plugin host.
    """


# --- the conversation ---------------------------------------------------------------------------------------------


@hookspec
def appliance_partial_transcript(call: Call, text: str) -> str | None:
    """What the caller has said so far, while they still speak.

    * When: the recogniser has a new guess, other than the last one; not every recogniser has any. Not on lines with
      ``agent: realtime``.
    * Budget: 20 ms.
    * Result: chained: what the text is to be.
    * Failure: the text stays as it was.
    * Process: the plugin host.
    """


@hookspec
def appliance_final_transcript(call: Call, text: str) -> str | Blocked | None:
    """What the caller has said in one turn. May run for a turn that the caller then goes on with.

    * When: the recogniser is done, before the flow or the model sees the text. The caller waits. Not on lines with
      ``agent: realtime``, whose model hears for itself.
    * Budget: 50 ms.
    * Result: chained: what the text is to be, or ``Blocked``, which ends the chain: nothing sees the text.
    * Failure: the text stays as it was.
    * Process: the plugin host.
    """


@hookspec
def appliance_before_llm(call: Call, request: ModelRequest) -> Sequence[str] | None:
    """What should the model know for this reply? May run for a reply that is then thrown away.

    * When: the model is about to be asked. The caller waits.
    * Budget: 100 ms.
    * Result: collected: texts of at most 4,000 characters that the model is shown as data, not as instructions.
    * Failure: the model is asked without them.
    * Process: the plugin host.
    """


@hookspec
def appliance_before_tool(call: Call, tool: str, arguments: Mapping[str, Any]) -> Mapping[str, Any] | Denied | None:
    """May this tool run, with these arguments? They fit the tool's schema; what is returned is checked again.

    * When: the model wants the tool and the caller has finished speaking; before the caller is asked to confirm it.
    * Budget: 100 ms.
    * Result: chained: what the arguments are to be, or ``Denied``, which ends the chain.
    * Failure: the arguments stay as they were.
    * Process: the plugin host.
    """


@hookspec
def appliance_after_tool(call: Call, tool: str, arguments: Mapping[str, Any], result: Any) -> Any:
    """What did the tool return? Any JSON value.

    * When: the tool has succeeded, before the model is told.
    * Budget: 100 ms.
    * Result: chained: what the result is to be.
    * Failure: the result stays as it was.
    * Process: the plugin host.
    """


@hookspec
def appliance_reply_text(call: Call, text: str) -> str | None:
    """What is about to be said: one piece of a reply, a clause or a sentence. "" leaves it out.

    * When: before synthesis, for each piece; may be asked for speech that is then thrown away. The caller waits for the
      first piece. Not for what bridges a wait, for the box's own apologies, and where a model speaks by itself.
    * Budget: 20 ms.
    * Result: chained: what the piece is to be.
    * Failure: the piece stays as it was.
    * Process: the plugin host.
    """


@hookspec
def appliance_key(call: Call, digit: str) -> None:
    """The caller has pressed a key: 0 to 9, ``*``, ``#``, A to D.

    * When: the key is released. Keys that the line must not see (a payment's) are not told.
    * Budget: 1 s.
    * Result: told.
    * Failure: noted in the call's record.
    * Process: the plugin host.
    """


@hookspec
def appliance_silence(call: Call, times: int) -> None:
    """The caller has said nothing when it was their turn, for the ``times``-th time in a row.

    * When: the line's time for an answer is over.
    * Budget: 1 s.
    * Result: told.
    * Failure: noted in the call's record.
    * Process: the plugin host.
    """


@hookspec
def appliance_transfer_requested(call: Call, target: str) -> str | Denied | None:
    """May the caller be put through to ``target``, and to whom instead?

    ``target`` is a number or a SIP URI, or the name of one of the line's ``transfers``; so is what is returned. The
    box's rules on which numbers may be dialled hold for it all the same.

    * When: the flow, the model, a tool or a key wants the transfer, before anybody is called.
    * Budget: 100 ms.
    * Result: chained: what the target is to be, or ``Denied``, which ends the chain.
    * Failure: the target stays as it was.
    * Process: the plugin host.
    """


# --- what is kept -------------------------------------------------------------------------------------------------


@hookspec
def appliance_before_storing(call: Call, texts: Sequence[str]) -> Sequence[str] | None:
    """What may be kept of these texts? They are about to go into the call's record, into logs and exports.

    * When: something that was said, noted or used by a tool is about to be stored.
    * Budget: 500 ms.
    * Result: chained: as many texts as there were, in the same order.
    * Failure: **closed**: each text is stored as ``[withheld: NAME failed]``, with the plugin's name.
    * Process: the plugin host.
    """


@hookspec
def appliance_call_ended(call: Call, summary: CallSummary) -> None:
    """The call is over. Its ``state`` goes when this hook and ``record_stored`` have returned.

    * When: the line is free again.
    * Budget: 30 s.
    * Result: told.
    * Failure: noted in the call's record.
    * Process: the plugin host.
    """


@hookspec(firstresult=True)
def appliance_keep_recording(call: Call, path: str) -> str | None:
    """Where is the recording kept? ``path`` is the finished WAV file; it may be moved, or copied and deleted.

    What is returned stands in the call's record in place of the path: another path, or the address of an object.

    * When: the call is over and its recording is closed and complete. The call counts against the box's limits until
      all plugins have answered.
    * Budget: 30 s.
    * Result: first.
    * Failure: the recording stays where it is.
    * Process: the plugin host.
    """


@hookspec
def appliance_record_stored(call: Call, record: Mapping[str, Any]) -> None:
    """The call's record is complete: what ``appliance calls show --json`` prints.

    Of a very long call the first turns may be missing, and of all turns ``asked``, ``waterfall`` and ``tools``.

    * When: everything about the call has been written, its recording too.
    * Budget: 30 s.
    * Result: told.
    * Failure: logged.
    * Process: the plugin host.
    """


@hookspec
def appliance_campaign_event(event: CampaignEvent) -> None:
    """Something has happened to a lead of a campaign.

    * When: a lead was dialled, reached, given up or finished. Only plugins that are enabled for the whole box are told.
    * Budget: 5 s.
    * Result: told.
    * Failure: logged.
    * Process: the plugin host.
    """


# --- the box's other doors ----------------------------------------------------------------------------------------


@hookspec
def appliance_http_routes() -> Sequence[Route] | None:
    """HTTP routes below ``/plugins/NAME``, on the box's HTTP listener.

    The box checks sizes (1 MB) and times (10 s a request) and nothing else: **who may call a route is the plugin's to
    check**.

    * When: the plugin host starts.
    * Budget: 100 ms.
    * Result: collected. The first route of a method and path has it.
    * Failure: the plugin has no routes.
    * Process: the plugin host, the handlers too.
    """


@hookspec
def appliance_cli_commands() -> Sequence[Command] | None:
    """Commands for the operator: ``appliance plugins run NAME COMMAND``.

    * When: such a command is given, or ``appliance plugins show`` lists them.
    * Budget: 100 ms.
    * Result: collected, by plugin.
    * Failure: the plugin has no commands.
    * Process: the process of the command line, as the user who gave the command.
    """


# --- providers ----------------------------------------------------------------------------------------------------


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

    * When: once in the media process, at start, and in ``appliance check``. The plugin must be one that
      ``plugins.media`` names.
    * Its ``open`` and the protocol that it makes run beside the audio of all calls, in the media process: they are PURE
      and quick, or every call stutters. Nothing else of a carrier runs there.
    """


@hookspec
def appliance_carrier_providers() -> Providers | None:
    """Whose calls can be taken and placed: the kinds of trunk beside ``sip``.

    * When: once in the control process, at start, and in ``appliance check``. The plugin must be one that
      ``plugins.media`` names: what its carrier does holds up every call.
    * The factory is called once for each trunk of the kind, with the trunk's options and an
      ``appliance.api.CarrierBox``; it returns an ``appliance.api.Carrier``. The options are the keys of the trunk that
      are not those of every trunk.
    * A kind needs both hooks of one plugin: this one for the calls, ``appliance_stream_providers`` for their audio.
    """
