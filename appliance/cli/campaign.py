"""``appliance campaign``: outbound campaigns, from the list of leads to the results.

It writes the box's database; a box that runs with it sees the change within a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, TypeVar

from appliance.campaigns import operations
from appliance.campaigns.checking import check
from appliance.campaigns.columns import columns_of
from appliance.campaigns.definition import Definition
from appliance.campaigns.definition_files import changed, misfits, read_definition
from appliance.campaigns.exporter import Format, What, export
from appliance.campaigns.importer import CampaignLeads, import_leads
from appliance.campaigns.jobs import import_told, simulated
from appliance.campaigns.lead_files import examine
from appliance.campaigns.lead_rows import RowError
from appliance.campaigns.mix import ASSUMED
from appliance.campaigns.mix_files import read_mix
from appliance.campaigns.number_lists import import_numbers, whole_number
from appliance.campaigns.simulate import Simulation
from appliance.cli.campaign_text import (
    MENDABLE,
    about_file,
    about_import,
    check_text,
    list_text,
    numbers_text,
    simulation_text,
    status_text,
)
from appliance.cli.progress import ProgressBar
from appliance.config import Settings, load_settings
from appliance.config.load import secrets_of
from appliance.dialplan.loader import load_lines
from appliance.errors import CampaignError, ConfigError
from appliance.store.campaign_rows import CampaignState
from appliance.store.campaigns import CampaignStore

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

T = TypeVar("T")

_NO: Final = 1
_PROBLEM: Final = 2
_FOLLOW_S: Final = 1.0
_FINAL: Final = (CampaignState.FINISHED, CampaignState.STOPPED)


def add_parser(subparsers: Subparsers) -> None:
    """``appliance campaign ACTION``."""
    parser = subparsers.add_parser(
        "campaign", help="outbound campaigns: make, check, fill, start, watch, export", description=__doc__
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}.")
        made.set_defaults(run=run)
        return made

    create = add("create", run_create, "make a campaign of a definition; it calls nobody before it is started")
    create.add_argument("file", type=Path, metavar="FILE", help="the definition, YAML; see docs/campaigns.md")
    checked = add("check", run_check, "tell who would be called now, and why not the rest")
    checked.add_argument("name", metavar="NAME", help="the campaign, or a file with a definition")
    checked.add_argument(
        "--limit", type=_positive, metavar="N", help="look at so many leads only, the first of the list (default: all)"
    )
    _add_import(add("import", run_import, "read a list of leads, CSV or JSON Lines, into a campaign"))
    for verb, summary in (
        ("start", "begin to call"),
        ("pause", "begin no more calls for now; those that go on may end"),
        ("resume", "go on with a campaign that was paused"),
        ("drain", "begin no more calls, and stop when the last one has ended"),
        ("stop", "begin no more calls, and end those that go on"),
    ):
        made = add(verb, run_verb, summary)
        made.add_argument("name", metavar="NAME", help="the campaign")
        made.add_argument("--reason", default="", metavar="TEXT", help="why, for whoever looks at the status")
    setting = add("set", run_set, "change keys of a campaign, also while it runs")
    setting.add_argument("name", metavar="NAME", help="the campaign")
    setting.add_argument("changes", nargs="+", metavar="KEY=VALUE", help="such as pacing.max_calls=20; values are YAML")
    add("list", run_list, "all campaigns, and where their leads are")
    status = add("status", run_status, "how far a campaign is, and how its calls ended")
    status.add_argument("name", metavar="NAME", help="the campaign")
    status.add_argument("--follow", action="store_true", help="go on until it has ended, with a bar that shows how far")
    exported = add("export", run_export, "write the results: each lead with its disposition, variables and slots")
    exported.add_argument("name", metavar="NAME", help="the campaign")
    exported.add_argument("-o", "--output", type=Path, metavar="FILE", help="the file to write (default: the terminal)")
    exported.add_argument(
        "--format",
        choices=("csv", "jsonl"),
        help="how (default: as FILE ends, or csv); csv is made safe for spreadsheets",
    )
    exported.add_argument("--attempts", action="store_true", help="each call instead of each lead")
    _add_simulate(add("simulate", run_simulate, "run a campaign in virtual time, and tell how it would go"))
    dnc = add("dnc", run_dnc, "the do-not-call list: of all campaigns, or of one")
    dnc.add_argument(
        "what", choices=("import", "add", "list", "remove"), metavar="WHAT", help="import, add, list, remove"
    )
    dnc.add_argument("values", nargs="*", metavar="VALUE", help="files to import, or numbers to add or remove")
    dnc.add_argument("--campaign", default="", metavar="NAME", help="the list of one campaign")
    dnc.add_argument("--region", default="", metavar="CC", help="country of numbers without a country code, such as US")
    dnc.add_argument("--encoding", default="", metavar="NAME", help="of the files (default: found out)")
    deleted = add("delete", run_delete, "erase a campaign with its leads and results")
    deleted.add_argument("name", metavar="NAME", help="the campaign")
    for made in actions.choices.values():
        made.add_argument("--json", action="store_true", help="print JSON")
        made.add_argument("-c", "--config", type=Path, metavar="FILE", help="appliance.yaml of the box")
        made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Rows that are wrong are written to FILE.errors.csv, beside the list, with what is wrong in the last column: "
        "mend them there and import that file. Importing a list twice changes nothing. Exit status 1 where rows could "
        "be mended."
    )
    parser.add_argument("name", metavar="NAME", help="the campaign")
    parser.add_argument("file", type=Path, metavar="FILE", help="the list")
    parser.add_argument("--dry-run", action="store_true", help="tell what would happen, and keep nothing")
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="MEANING=COLUMN",
        help="what columns mean, such as number=Phone,name='First Name'; the others are guessed by their names",
    )
    parser.add_argument("--only-map", action="store_true", help="leave out the columns that --map does not name")
    parser.add_argument("--encoding", default="", metavar="NAME", help="such as utf-8 (default: found out)")
    parser.add_argument("--delimiter", default="", metavar="CHAR", help="between fields (default: found out)")
    parser.add_argument("--format", choices=("csv", "jsonl"), help="of the list (default: by its name)")
    parser.add_argument(
        "--errors-in", type=Path, metavar="FOLDER", help="where to write rows that are wrong (default: beside FILE)"
    )


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "What becomes of each call is drawn from a mix: see docs/campaign-rules.md. Nothing is kept."
    parser.add_argument("name", metavar="NAME", help="the campaign; its leads that are not done are called")
    mix = parser.add_mutually_exclusive_group()
    mix.add_argument("--mix", type=Path, metavar="FILE", help="what becomes of calls, YAML (default: a guess)")
    mix.add_argument("--from", dest="earlier", metavar="NAME", help="as the calls of that campaign have come out")
    parser.add_argument(
        "--start", metavar="TIME", help="when it is started, such as 2026-12-01T09:00-05:00 (default: now)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the draws (default: 1)")
    parser.add_argument("--runs", type=_positive, metavar="N", help="how often (default: 25, fewer of a long list)")


# --- actions ------------------------------------------------------------------------------------------------------


def run_create(args: argparse.Namespace) -> int:
    """0; mistakes in the definition are a problem."""
    settings = load_settings(args.config, args.set)
    definition = read_definition(args.file, secrets=secrets_of(settings))
    lines = _lines(settings)

    async def work(store: CampaignStore) -> dict[str, Any]:
        made, lists = await operations.create(
            store, definition, settings, lines=lines, folder=args.file.absolute().parent
        )
        return {"name": definition.name, "id": made, "dnc": [report.as_json() for report in lists]}

    made = _with_store(settings, work)
    listed = "".join(f"; {numbers_text(report)}" for report in made["dnc"])
    return _told(args, made, f"campaign {definition.name!r} is made{listed}; now import leads")


def run_check(args: argparse.Namespace) -> int:
    """1 where nobody would be called now, or a definition in a file has mistakes."""
    settings = load_settings(args.config, args.set)
    if Path(args.name).suffix in (".yaml", ".yml", ".json"):
        return _check_file(args, settings)
    lines = _lines(settings)

    async def work(store: CampaignStore) -> dict[str, Any]:
        row = await store.campaign(args.name)
        definition = operations.definition_of(row)
        wrong = [str(one) for one in misfits(definition, settings, lines)]
        with ProgressBar("leads", shown=not args.json) as bar:
            report = await check(
                store, row.name, definition, settings, now=await store.now(), limit=args.limit, progress=bar
            )
        return {"name": row.name, "state": str(row.state), "mistakes": wrong, **report.as_json()}

    found = _with_store(settings, work)
    _told(args, found, check_text(found))
    return 0 if found["now"] and not found["mistakes"] else _NO


def _check_file(args: argparse.Namespace, settings: Settings) -> int:
    found: list[str] = []
    try:
        definition = read_definition(Path(args.name), secrets=secrets_of(settings))
        found = [str(one) for one in misfits(definition, settings, _lines(settings))]
    except ConfigError as error:
        found = [str(one) for one in error.mistakes]
    if args.json:
        print(json.dumps({"ok": not found, "mistakes": found}, indent=2))
    else:
        print("\n".join(found) or f"ok: {args.name}")
    return _NO if found else 0


def run_import(args: argparse.Namespace) -> int:
    """1 where rows are wrong that could be mended."""
    settings = load_settings(args.config, args.set)

    async def work(store: CampaignStore) -> dict[str, Any]:
        row = await store.campaign(args.name)
        definition = operations.definition_of(row)
        with ProgressBar("bytes", shown=not args.json) as bar:
            file = examine(
                args.file,
                encoding=args.encoding,
                delimiter=args.delimiter,
                format=args.format,
                region=definition.region,
                seen=bar,
            )
        columns = columns_of(file.header, args.map, only_said=args.only_map)
        if not args.json:
            print(about_file(file, columns))
        with ProgressBar("rows", shown=not args.json) as bar:
            report = await import_leads(
                file,
                columns,
                definition,
                CampaignLeads(store, row.id),
                now=await store.now(),
                wanted=_wanted(settings, definition.line),
                dry_run=args.dry_run,
                error_folder=args.errors_in,
                progress=bar,
            )
        about = import_told(file.encoding, [*file.notes, *columns.notes], list(columns.told()))
        return {"name": row.name, "file": str(args.file), **about, **report.as_json()}

    found = _with_store(settings, work)
    _told(args, found, about_import(found))
    return _NO if MENDABLE & set(found["errors_by_kind"]) else 0


def run_verb(args: argparse.Namespace) -> int:
    """0, also where it is so already."""
    settings = load_settings(args.config, args.set)
    verb = args.action
    lines = _lines(settings) if operations.VERBS[verb] is CampaignState.RUNNING else None

    async def work(store: CampaignStore) -> dict[str, Any]:
        said = await operations.command(store, args.name, verb, settings, lines, args.reason)
        return {**operations.summary(await store.campaign(args.name)), "said": said}

    found = _with_store(settings, work)
    return _told(args, found, found["said"])


def run_set(args: argparse.Namespace) -> int:
    """0 once it is kept; a mistake changes nothing."""
    settings = load_settings(args.config, args.set)
    lines = _lines(settings)

    def edit(definition: Definition) -> Definition:
        return changed(definition, args.changes)

    async def work(store: CampaignStore) -> dict[str, Any]:
        revision = await operations.change(store, args.name, edit, settings, lines)
        return {"name": args.name, "revision": revision}

    found = _with_store(settings, work)
    return _told(args, found, f"campaign {args.name!r} is at revision {found['revision']}")


def run_list(args: argparse.Namespace) -> int:
    """0, also when there is no campaign yet."""
    found = _with_store(load_settings(args.config, args.set), operations.listing)
    return _told(args, found, list_text(found))


def run_status(args: argparse.Namespace) -> int:
    """0. With --follow it returns when the campaign has ended."""
    settings = load_settings(args.config, args.set)

    async def work(store: CampaignStore) -> dict[str, Any]:
        with ProgressBar("leads", shown=args.follow and not args.json) as bar:
            while True:
                found = await operations.status(store, args.name)
                if not args.follow or (found["state"] in _FINAL and not found["calling"]):
                    return found
                bar(found["done"], max(found["leads"], found["done"] + 1))
                await asyncio.sleep(_FOLLOW_S)

    found = _with_store(settings, work)
    return _told(args, found, status_text(found))


def run_export(args: argparse.Namespace) -> int:
    """0, also where there is nothing in it yet."""
    settings = load_settings(args.config, args.set)
    named = args.output is not None and args.output.suffix.lower() in (".jsonl", ".ndjson")
    chosen: Format = args.format or ("jsonl" if named else "csv")
    what: What = "attempts" if args.attempts else "leads"

    async def work(store: CampaignStore) -> int:
        await store.campaign(args.name)
        with _output(args.output) as to:
            return await export(store, args.name, to, what=what, format=chosen)

    written = _with_store(settings, work)
    if args.output is None:
        return 0
    found = {"name": args.name, "file": str(args.output), "format": chosen, what: written}
    return _told(args, found, f"{args.output}: {written:,} {what}")


def run_simulate(args: argparse.Namespace) -> int:
    """0; it tells, and keeps nothing."""
    settings = load_settings(args.config, args.set)
    given = read_mix(args.mix) if args.mix is not None else ASSUMED
    start = _moment(args.start) if args.start else None

    async def work(store: CampaignStore) -> Simulation:
        with ProgressBar("runs", shown=not args.json) as bar:
            return await simulated(
                store,
                settings,
                args.name,
                mix=given,
                earlier=args.earlier or "",
                start=start,
                seed=args.seed,
                runs=args.runs,
                progress=bar,
            )

    found = _with_store(settings, work)
    guess = "" if args.mix or args.earlier else "of a guess at what becomes of calls; --mix and --from know better"
    return _told(args, found.as_json(), simulation_text(found, guess))


def _moment(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise CampaignError(f"--start {text!r} is not a time; write it as 2026-12-01T09:00-05:00") from None
    return when.astimezone(UTC)


def run_dnc(args: argparse.Namespace) -> int:
    """1 where nothing was removed that was to be."""
    settings = load_settings(args.config, args.set)
    if (args.what == "list") == bool(args.values):
        needed = "takes no values" if args.values else "needs files or numbers"
        print(f"appliance campaign dnc {args.what}: {needed}", file=sys.stderr)
        return _PROBLEM

    async def work(store: CampaignStore) -> dict[str, Any]:
        row = await store.campaign(args.campaign) if args.campaign else None
        campaign_id = row.id if row is not None else ""
        region = (
            args.region.upper() or (row.definition["region"] if row is not None else settings.dialplans.region) or ""
        )
        match args.what:
            case "import":
                reports = [
                    await import_numbers(Path(one), region, store, campaign_id=campaign_id, encoding=args.encoding)
                    for one in args.values
                ]
                return {"files": [{"file": n, **r.as_json()} for n, r in zip(args.values, reports, strict=True)]}
            case "list":
                found = [
                    {"number": number, "since": since.isoformat(), "source": source}
                    async for number, since, source in store.refused(campaign_id=campaign_id)
                ]
                return {"numbers": found}
        try:
            numbers = [whole_number(value, region) for value in args.values]
        except RowError as error:
            raise CampaignError(f"{error}; write it with + and country code, or name a --region") from None
        if args.what == "add":
            return {"added": await store.refuse(numbers, source="operator", campaign_id=campaign_id)}
        return {"removed": sum([await store.allow(number, campaign_id=campaign_id) for number in numbers])}

    found = _with_store(settings, work)
    match args.what:
        case "import":
            text = "\n".join(f"{one['file']}: {numbers_text(one)}" for one in found["files"])
        case "list":
            text = "\n".join(f"{one['number']:<16} {one['since'][:19]}  {one['source']}" for one in found["numbers"])
            text = text or "nobody is on it"
        case "add":
            text = f"{found['added']} added"
        case _:
            text = f"{found['removed']} removed"
    _told(args, found, text)
    return _NO if args.what == "remove" and not found["removed"] else 0


def run_delete(args: argparse.Namespace) -> int:
    """0 once it is gone."""
    settings = load_settings(args.config, args.set)

    async def work(store: CampaignStore) -> dict[str, Any]:
        return {"name": args.name, "leads": await store.delete(args.name)}

    found = _with_store(settings, work)
    return _told(args, found, f"campaign {args.name!r} is gone, with {found['leads']:,} leads")


# --- inside -------------------------------------------------------------------------------------------------------


def _with_store(settings: Settings, work: Callable[[CampaignStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with CampaignStore(settings.store.url) as store:
            return await work(store)

    return asyncio.run(main())


def _lines(settings: Settings) -> Collection[str]:
    return [line.name for line in load_lines(settings).lines]


def _wanted(settings: Settings, line: str) -> list[str]:
    """The variables that a line's texts want; none where it cannot be read: that is said when the campaign starts."""
    try:
        found = load_lines(settings).line(line)
    except ConfigError:
        return []
    return operations.variables_of(found) if found is not None else []


def _told(args: argparse.Namespace, found: Any, text: str) -> int:
    print(json.dumps(found, indent=2) if args.json else text)
    return 0


@contextlib.contextmanager
def _output(path: Path | None) -> Any:
    """The file to write, which is whole or not there; the terminal for None."""
    if path is None:
        yield sys.stdout
        return
    part = path.with_name(f".{path.name}.{time.monotonic_ns()}.part")
    to: TextIO
    try:
        to = part.open("x", encoding="utf-8", newline="")
    except OSError as error:
        raise CampaignError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
    try:
        with to:
            yield to
        part.replace(path)
    except OSError as error:
        raise CampaignError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
    finally:
        part.unlink(missing_ok=True)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, 1 or more")
    return int(text[:9])
