"""``/api/v1/campaigns`` and ``/api/v1/do-not-call``: campaigns over HTTP, as ``appliance campaign`` has them."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from aiohttp import web

from appliance.campaigns import operations
from appliance.campaigns.definition_files import parsed_definition, patched
from appliance.campaigns.jobs import JobError, in_a_process
from appliance.campaigns.lead_rows import RowError
from appliance.campaigns.number_lists import whole_number
from appliance.config import Settings
from appliance.config.load import secrets_of
from appliance.dialplan.schema import Line
from appliance.errors import ApplianceError, ConfigError, StoreError
from appliance.store.campaign_rows import CampaignRow
from appliance.store.campaigns import BATCH, CampaignStore

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_UPLOAD: Final = 256 * 1024**2
MAX_BODY: Final = 1024**2
MAX_NUMBERS: Final = 10_000
_JOBS: Final = 2
_JOB_S: Final = 900.0
_UPLOAD_S: Final = 600.0
_CHUNK: Final = 256 * 1024
_KEPT_ERRORS: Final = 20


class CampaignsApi:
    """The routes; docs/campaigns.md lists them. Long work is done in processes of their own, two at a time; a third is
    told to come again.

    Args:
        settings: of the box; the campaigns' database is opened when it is first asked for.
        lines: of the dialplan, as it is now.
    """

    def __init__(self, settings: Settings, lines: Callable[[], Sequence[Line]]) -> None:
        self._store = CampaignStore(settings.store.url)
        self._opening = asyncio.Lock()
        self._is_open = False
        self._settings = settings
        self._dialplan = lines
        self._jobs = 0
        self._folder = settings.state_dir / "uploads"

    def routes(self) -> list[web.RouteDef]:
        one = "/api/v1/campaigns/{name}"
        lists = "/api/v1/do-not-call"
        return [
            web.get("/api/v1/campaigns", self._handled(self._list)),
            web.post("/api/v1/campaigns", self._handled(self._create)),
            web.get(one, self._handled(self._status)),
            web.patch(one, self._handled(self._change)),
            web.delete(one, self._handled(self._delete)),
            web.post(f"{one}/{{verb:start|pause|resume|drain|stop}}", self._handled(self._command)),
            web.post(f"{one}/leads", self._handled(self._import)),
            web.get(f"{one}/imports/{{id:[0-9a-f]{{16}}}}", self._handled(self._errors)),
            web.get(f"{one}/check", self._handled(self._check)),
            web.get(f"{one}/export", self._handled(self._export)),
            web.post(f"{one}/simulate", self._handled(self._simulate)),
            web.get(lists, self._handled(self._numbers)),
            web.post(lists, self._handled(self._refuse)),
            web.post(f"{lists}/import", self._handled(self._import_numbers)),
            web.delete(f"{lists}/{{number}}", self._handled(self._allow)),
        ]

    async def close(self) -> None:
        """Close the database."""
        if self._is_open:
            await self._store.close()

    async def _open(self) -> None:
        async with self._opening:
            if not self._is_open:
                await self._store.open()
                self._is_open = True
                for left in self._folder.glob("upload-*"):  # of a process that was killed
                    await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)

    def _handled(self, handler: Handler) -> Handler:
        async def handled(request: web.Request) -> web.StreamResponse:
            try:
                await self._open()
                return await handler(request)
            except ConfigError as error:
                return _wrong(400, str(error), [str(mistake) for mistake in error.mistakes])
            except JobError as error:
                return _wrong(400, str(error), error.mistakes)
            except StoreError as error:
                return _wrong(503 if error.__cause__ is not None else 409, str(error))
            except ApplianceError as error:
                return _wrong(409, str(error))

        return handled

    def _lines(self) -> set[str]:
        return {line.name for line in self._dialplan()}

    # --- campaigns ------------------------------------------------------------------------------------------------

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response({"campaigns": await operations.listing(self._store)})

    async def _create(self, request: web.Request) -> web.Response:
        text = await _text(request)
        definition = parsed_definition(text, "body", secrets=secrets_of(self._settings))
        made, _ = await operations.create(self._store, definition, self._settings, lines=self._lines())
        where = {"Location": f"/api/v1/campaigns/{definition.name}"}
        return web.json_response({"name": definition.name, "id": made}, status=201, headers=where)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(await operations.status(self._store, (await self._campaign(request)).name))

    async def _change(self, request: web.Request) -> web.Response:
        row = await self._campaign(request)
        patch = await _json(request)
        revision = await operations.change(
            self._store, row.name, lambda definition: patched(definition, patch), self._settings, self._lines()
        )
        return web.json_response({"name": row.name, "revision": revision})

    async def _delete(self, request: web.Request) -> web.Response:
        row = await self._campaign(request)
        return web.json_response({"name": row.name, "leads": await self._store.delete(row.name)})

    async def _command(self, request: web.Request) -> web.Response:
        row = await self._campaign(request)
        reason = (await _json(request)).get("reason", "") if request.can_read_body else ""
        verb = request.match_info["verb"]
        said = await operations.command(self._store, row.name, verb, self._settings, self._lines(), str(reason)[:500])
        return web.json_response({**operations.summary(await self._store.campaign(row.name)), "said": said})

    # --- long work ------------------------------------------------------------------------------------------------

    async def _import(self, request: web.Request) -> web.Response:
        row = await self._campaign(request)
        given = _query(request, "dry_run", "only_map", "map", "encoding", "delimiter", "format")
        kind = given.get("format") or ("jsonl" if "json" in request.content_type else "csv")
        if kind not in ("csv", "jsonl"):
            return _wrong(400, f"format {kind!r} is neither csv nor jsonl")
        async with self._working(), self._uploaded(request, kind) as path:
            line = next((one for one in self._dialplan() if one.name == row.definition.get("line")), None)
            found = await self._job(
                "import",
                {
                    "name": row.name,
                    "wanted": operations.variables_of(line) if line is not None else [],
                    "path": str(path),
                    "format": kind,
                    "map": request.query.getall("map", []),
                    "only_map": _yes(given, "only_map"),
                    "dry_run": _yes(given, "dry_run"),
                    "encoding": given.get("encoding", ""),
                    "delimiter": given.get("delimiter", ""),
                },
            )
            errors = Path(found.pop("error_file") or "/")
            found["errors_url"] = None
            if errors.is_file():
                name = await asyncio.to_thread(self._kept, errors, row.id)
                found["errors_url"] = f"/api/v1/campaigns/{row.name}/imports/{name}"
        return web.json_response(found)

    async def _errors(self, request: web.Request) -> web.StreamResponse:
        row = await self._campaign(request)
        found = list(self._folder.glob(f"{row.id}.{request.match_info['id']}.errors.*"))
        if not found:
            return _wrong(404, f"the rows with errors of the last {_KEPT_ERRORS} imports are kept; these are not")
        return await _sent(request, found[0], f"{row.name}.errors{found[0].suffix}")

    async def _check(self, request: web.Request) -> web.Response:
        row = await self._campaign(request)
        given = _query(request, "limit")
        async with self._working():
            return web.json_response(await self._job("check", {"name": row.name, "limit": _count(given, "limit")}))

    async def _export(self, request: web.Request) -> web.StreamResponse:
        row = await self._campaign(request)
        given = _query(request, "what", "format")
        what, kind = given.get("what", "leads"), given.get("format", "csv")
        if what not in ("leads", "attempts") or kind not in ("csv", "jsonl"):
            return _wrong(400, "what is leads or attempts, and format is csv or jsonl")
        async with self._working(), self._temporary(kind) as path:
            await self._job("export", {"name": row.name, "path": str(path), "what": what, "format": kind})
            return await _sent(request, path, f"{row.name}.{what}.{kind}")

    async def _simulate(self, request: web.Request) -> web.Response:
        row = await self._campaign(request)
        given = await _json(request) if request.can_read_body else {}
        async with self._working():
            return web.json_response(await self._job("simulate", {**given, "name": row.name}))

    # --- do not call ----------------------------------------------------------------------------------------------

    async def _numbers(self, request: web.Request) -> web.StreamResponse:
        campaign_id, _ = await self._list_of(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        lines: list[str] = []
        async for number, since, source in self._store.refused(campaign_id=campaign_id):
            lines.append(json.dumps({"number": number, "since": since.isoformat(), "source": source}) + "\n")
            if len(lines) == BATCH:
                await response.write("".join(lines).encode())
                lines.clear()
        await response.write("".join(lines).encode())
        await response.write_eof()
        return response

    async def _refuse(self, request: web.Request) -> web.Response:
        campaign_id, region = await self._list_of(request)
        numbers = (await _json(request)).get("numbers")
        if not isinstance(numbers, list) or not all(isinstance(one, str) for one in numbers) or not numbers:
            return _wrong(400, 'write {"numbers": ["+12025550123"]}')
        if len(numbers) > MAX_NUMBERS:
            return _wrong(
                413, f"at most {MAX_NUMBERS:,} numbers at a time; upload a file to /api/v1/do-not-call/import"
            )
        try:
            whole = [whole_number(number, region) for number in numbers]
        except RowError as error:
            return _wrong(400, f"{error}; write it with + and country code, or add ?region=")
        added = await self._store.refuse(whole, source="api", campaign_id=campaign_id)
        return web.json_response({"added": added})

    async def _import_numbers(self, request: web.Request) -> web.Response:
        campaign_id, region = await self._list_of(request, "encoding", "source")
        kind = "jsonl" if "json" in request.content_type else "csv"
        async with self._working(), self._uploaded(request, kind) as path:
            given = {
                "path": str(path),
                "region": region,
                "campaign_id": campaign_id,
                "source": request.query.get("source", "upload")[:200],
                "encoding": request.query.get("encoding", ""),
            }
            return web.json_response(await self._job("numbers", given))

    async def _allow(self, request: web.Request) -> web.Response:
        campaign_id, region = await self._list_of(request)
        try:
            number = whole_number(request.match_info["number"], region)
        except RowError as error:
            return _wrong(400, str(error))
        if not await self._store.allow(number, campaign_id=campaign_id):
            return _wrong(404, f"{number} is not on the list")
        return web.json_response({"removed": 1})

    async def _list_of(self, request: web.Request, *also: str) -> tuple[str, str]:
        """(campaign id or "", region) of the list that a request is about."""
        given = _query(request, "campaign", "region", *also)
        region = given.get("region", "").upper() or self._settings.dialplans.region or ""
        if not given.get("campaign"):
            return "", region
        row = await self._named(given["campaign"])
        return row.id, given.get("region", "").upper() or str(row.definition.get("region", ""))

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _campaign(self, request: web.Request) -> CampaignRow:
        return await self._named(request.match_info["name"])

    async def _named(self, name: str) -> CampaignRow:
        row = await self._store.find(name)
        if row is None:
            raise web.HTTPNotFound(text=_body(f"there is no campaign {name!r}"), content_type="application/json")
        return row

    async def _job(self, job: str, given: Mapping[str, Any]) -> Any:
        return await in_a_process(self._settings, job, given, timeout_s=_JOB_S)

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """
        Raises:
            HTTPTooManyRequests: so much is done already.
        """
        if self._jobs >= _JOBS:
            text = _body(f"{_JOBS} imports, checks or exports are at work; come again when one is done")
            raise web.HTTPTooManyRequests(text=text, content_type="application/json", headers={"Retry-After": "10"})
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1

    @asynccontextmanager
    async def _temporary(self, kind: str) -> AsyncIterator[Path]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="upload-") as folder:
            yield Path(folder, f"leads.{kind}")

    @asynccontextmanager
    async def _uploaded(self, request: web.Request, kind: str) -> AsyncIterator[Path]:
        """The body of a request as a file, which goes with the block.

        Raises:
            HTTPRequestEntityTooLarge: it is larger than MAX_UPLOAD.
            HTTPRequestTimeout: it has not come in time.
        """
        if (request.content_length or 0) > MAX_UPLOAD:
            raise _too_large()
        async with self._temporary(kind) as path:
            with path.open("wb") as file:
                size = 0
                try:
                    async with asyncio.timeout(_UPLOAD_S):
                        async for chunk in request.content.iter_chunked(_CHUNK):
                            size += len(chunk)
                            if size > MAX_UPLOAD:
                                raise _too_large()
                            await asyncio.to_thread(file.write, chunk)
                except TimeoutError:
                    text = _body(f"the file has not come within {_UPLOAD_S:.0f} s")
                    raise web.HTTPRequestTimeout(text=text, content_type="application/json") from None
            yield path

    def _kept(self, errors: Path, campaign_id: str) -> str:
        """Keep a file of errors for a while, and give its name; the oldest ones go."""
        name = secrets.token_hex(8)
        errors.replace(self._folder / f"{campaign_id}.{name}.errors{errors.suffix}")
        kept = sorted(self._folder.glob("*.errors.*"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-_KEPT_ERRORS]:
            path.unlink(missing_ok=True)
        return name


def _body(text: str, mistakes: Collection[str] = ()) -> str:
    return json.dumps({"error": text, **({"mistakes": list(mistakes)} if mistakes else {})})


def _wrong(status: int, text: str, mistakes: Collection[str] = ()) -> web.Response:
    return web.Response(status=status, text=_body(text, mistakes), content_type="application/json")


def _too_large() -> web.HTTPRequestEntityTooLarge:
    text = _body(f"the file is larger than {MAX_UPLOAD // 1024**2} MiB; split it")
    return web.HTTPRequestEntityTooLarge(MAX_UPLOAD, text=text, content_type="application/json")


def _query(request: web.Request, *known: str) -> dict[str, str]:
    for key in request.query:
        if key not in known:
            text = _body(f"?{key}= is unknown; known: {', '.join(known)}")
            raise web.HTTPBadRequest(text=text, content_type="application/json")
    return dict(request.query)


def _yes(given: Mapping[str, str], key: str) -> bool:
    return given.get(key, "").lower() in ("1", "true", "yes")


def _count(given: Mapping[str, str], key: str) -> int:
    text = given.get(key, "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise web.HTTPBadRequest(text=_body(f"{key} is not a whole number"), content_type="application/json")
    return int(text)


async def _text(request: web.Request) -> str:
    body = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > MAX_BODY:
            text = _body(f"the body is larger than {MAX_BODY // 1024} KiB")
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, text=text, content_type="application/json")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise web.HTTPBadRequest(text=_body("the body is not UTF-8"), content_type="application/json") from None


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        found = json.loads(await _text(request) or "{}")
    except (ValueError, RecursionError):
        raise web.HTTPBadRequest(text=_body("the body is not JSON"), content_type="application/json") from None
    if not isinstance(found, dict):
        raise web.HTTPBadRequest(text=_body("the body is not a JSON object"), content_type="application/json")
    return found


async def _sent(request: web.Request, path: Path, name: str) -> web.StreamResponse:
    """A file, all of it sent when this returns."""
    kind = "application/x-ndjson" if path.suffix == ".jsonl" else "text/csv"
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Length": str(path.stat().st_size),
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            await response.write(chunk)
    await response.write_eof()
    return response
