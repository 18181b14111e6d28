"""A hub of models on loopback, which speaks Hugging Face's protocol and fails on request.

Small files are answered where they are asked for; large ones (``large``) by a redirect to the store of contents, which
may be another server, as the real hub has it.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What the next answer with this file's content does.

    kind: ``cut`` (the connection ends after ``at`` bytes of the file), ``stall`` (nothing more comes), ``corrupt``
    (the byte at ``at`` is another), ``longer`` (a byte too many, without a length), ``page`` (a web page instead),
    ``wrong_range`` (goes on elsewhere than asked), ``no_range`` (answers with everything), ``status``.
    """

    kind: str
    at: int = 0
    status: int = 503
    retry_after: int | None = None
    lasts: int = 1


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    if_range: str | None
    authorization: str | None


@dataclass
class Repository:
    files: dict[str, bytes]
    large: set[str] = field(default_factory=set)
    gated: bool = False
    commit: str = COMMIT
    tells_checksums: bool = True

    def checksum(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()


class Hub:
    """The server and what it was asked; ``faults`` by file name, done in turn."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.plain: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[Request] = []
        self.store_url = ""
        self.etags = True
        self.over = threading.Event()
        self.stalled = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            hub = outer

            def do_GET(self) -> None:
                outer.answer(self, body=True)

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that go away are what these tests are about

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked(self, part: str, method: str = "GET") -> list[Request]:
        return [one for one in self.requests if part in one.path and one.method == method]

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        parts = urllib.parse.urlsplit(handler.path)
        path = urllib.parse.unquote(parts.path)
        headers = handler.headers
        with self._lock:
            self.requests.append(
                Request(
                    handler.command,
                    handler.path,
                    headers.get("Range"),
                    headers.get("If-Range"),
                    headers.get("Authorization"),
                )
            )
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._revision(handler, match[1], match[2] or "main", "blobs=true" in parts.query, body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            self._tree(handler, match[1], body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(handler, match[1], match[2], match[3], body)
        elif match := re.fullmatch(r"/store/([0-9a-f]{64})/(.+)", path):
            content = next(
                one.files[match[2]]
                for one in self.repositories.values()
                if match[2] in one.files and one.checksum(match[2]) == match[1]
            )
            self._content(handler, match[2], content, {}, body)
        elif path.removeprefix("/files/") in self.plain:
            name = path.removeprefix("/files/")
            self._content(handler, name, self.plain[name], {}, body)
        else:
            self._error(handler, 404, "EntryNotFound", "Entry not found")

    def _revision(self, handler: BaseHTTPRequestHandler, name: str, revision: str, blobs: bool, body: bool) -> None:
        repository = self.repositories.get(name)
        if repository is None:
            self._error(handler, 404, "RepoNotFound", "Repository not found")
            return
        if repository.gated and not handler.headers.get("Authorization"):
            self._error(handler, 403, "GatedRepo", f"Access to model {name} is restricted")
            return
        if revision not in ("main", repository.commit):
            self._error(handler, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        siblings = []
        for path, content in repository.files.items():
            one: dict[str, Any] = {"rfilename": path}
            if blobs and repository.tells_checksums:
                blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
                one |= {"size": len(content), "blobId": blob}
                if path in repository.large:
                    one["lfs"] = {"sha256": repository.checksum(path), "size": len(content), "pointerSize": 134}
            siblings.append(one)
        answer = {"id": name, "modelId": name, "sha": repository.commit, "private": False, "gated": repository.gated}
        answer |= {"tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
        self._send(handler, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body)

    def _tree(self, handler: BaseHTTPRequestHandler, name: str, body: bool) -> None:
        repository = self.repositories[name]
        listed = []
        for path, content in repository.files.items():
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            one: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
            if path in repository.large:
                one["lfs"] = {"oid": repository.checksum(path), "size": len(content), "pointerSize": 134}
            listed.append(one)
        self._send(handler, 200, json.dumps(listed).encode(), {"Content-Type": "application/json"}, body)

    def _resolve(self, handler: BaseHTTPRequestHandler, name: str, revision: str, path: str, body: bool) -> None:
        repository = self.repositories.get(name)
        if repository is None or path not in repository.files or revision not in ("main", repository.commit):
            self._error(handler, 404, "EntryNotFound", "Entry not found")
            return
        if repository.gated and not handler.headers.get("Authorization"):
            self._error(handler, 401, "GatedRepo", f"Access to model {name} is restricted")
            return
        content = repository.files[path]
        headers = {"X-Repo-Commit": repository.commit}
        if path in repository.large:
            checksum = repository.checksum(path)
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{checksum}"'}
            headers["Location"] = f"{self.store_url or self.url}/store/{checksum}/{path}"
            self._send(handler, 302, b"", headers, body)
        else:
            self._content(handler, path, content, headers, body)

    def _content(
        self, handler: BaseHTTPRequestHandler, name: str, content: bytes, headers: dict[str, str], body: bool
    ) -> None:
        fault = self._fault(name) if body else None
        kind = fault.kind if fault else ""
        if fault is not None and kind == "status":
            extra = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self._send(handler, fault.status, b"busy", extra, body)
            return
        if kind == "page":
            self._send(handler, 200, b"<html>log in</html>", {"Content-Type": "text/html"}, body)
            return
        headers = {**headers, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.etags:
            headers["ETag"] = etag
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        if asked and kind != "no_range" and handler.headers.get("If-Range") in (None, etag):
            start, status = int(asked[1]), 206
            if start >= len(content):
                self._send(handler, 416, b"", {"Content-Range": f"bytes */{len(content)}"}, body)
                return
            if kind == "wrong_range":
                start -= 1
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        data = bytearray(content)
        if fault is not None and kind == "corrupt":
            data[fault.at] ^= 0xFF
        if kind == "longer":
            data += b"!"
            handler.close_connection = True
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(data) - start)
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        if not body:
            return
        if fault is not None and kind in ("cut", "stall"):
            handler.wfile.write(bytes(data[start : max(fault.at, start)]))
            handler.wfile.flush()
            if kind == "stall":
                self.stalled.set()
                self.over.wait(60)
            handler.close_connection = True
            return
        handler.wfile.write(bytes(data[start:]))

    def _fault(self, name: str) -> Fault | None:
        with self._lock:
            waiting = self.faults.get(name)
            if not waiting:
                return None
            fault = waiting[0]
            fault.lasts -= 1
            if fault.lasts <= 0:
                waiting.pop(0)
            return fault

    def _error(self, handler: BaseHTTPRequestHandler, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._send(handler, status, json.dumps({"error": message}).encode(), headers, True)

    def _send(
        self, handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str], body: bool
    ) -> None:
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if body and handler.command != "HEAD":
            handler.wfile.write(content)


@contextmanager
def running() -> Iterator[Hub]:
    """A hub, until the block ends."""
    hub = Hub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        hub.server.shutdown()
        hub.server.server_close()
        thread.join(10)
