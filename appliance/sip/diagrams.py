"""State diagrams of this package, drawn from its tables as Mermaid text."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.sip.call_state import UAC_TABLE, UAS_TABLE, CallState, CallTable
from appliance.sip.registration import REGISTRATION_TABLE, RegistrationState
from appliance.sip.transaction import INITIAL, TABLES, Kind, State

_TITLES = {
    Kind.INVITE_CLIENT: "SIP INVITE client transaction (RFC 3261 §17.1.1, RFC 6026)",
    Kind.CLIENT: "SIP non-INVITE client transaction (RFC 3261 §17.1.2)",
    Kind.INVITE_SERVER: "SIP INVITE server transaction (RFC 3261 §17.2.1, RFC 6026)",
    Kind.SERVER: "SIP non-INVITE server transaction (RFC 3261 §17.2.2)",
}


def sip_diagrams() -> dict[str, str]:
    """Mermaid ``stateDiagram-v2`` text by title."""
    diagrams = {title: _transaction(kind) for kind, title in _TITLES.items()}
    diagrams["SIP call to us (RFC 3261 §13.3, §15)"] = _call(UAS_TABLE, CallState.INVITED)
    diagrams["SIP call from us (RFC 3261 §13.2, §9.1, §15)"] = _call(UAC_TABLE, CallState.CALLING)
    diagrams["SIP registration of ours (RFC 3261 §10.2)"] = _registration()
    return diagrams


def _registration() -> str:
    rows = [("[*]", RegistrationState.IDLE.value, "made")]
    rows += [(state.value, after.value, event.value) for (state, event), after in REGISTRATION_TABLE.items()]
    return _mermaid(rows, [RegistrationState.GONE.value])


def _transaction(kind: Kind) -> str:
    initial, actions = INITIAL[kind]
    rows = [("[*]", initial.value, ", ".join(actions) or "request")]
    for (state, event), step in TABLES[kind].items():
        doing = f" / {', '.join(step.actions)}" if step.actions else ""
        rows.append((state.value, step.state.value, f"{event.value}{doing}"))
    return _mermaid(rows, [State.TERMINATED.value])


def _call(table: CallTable, initial: CallState) -> str:
    rows = [("[*]", initial.value, "INVITE")]
    rows += [(state.value, after.value, event.value) for (state, event), after in table.items()]
    return _mermaid(rows, [CallState.TERMINATED.value])


def _mermaid(rows: Iterable[tuple[str, str, str]], final: Iterable[str]) -> str:
    lines = ["stateDiagram-v2"]
    for before, after, label in rows:
        # Labels must hold neither a colon nor a semicolon: Mermaid takes them as its own syntax.
        lines.append(f"    {_id(before)} --> {_id(after)}: {label}")
    lines += [f"    {_id(state)} --> [*]" for state in final]
    return "\n".join(lines) + "\n"


def _id(state: str) -> str:
    return state if state == "[*]" else state.replace(" ", "_")
