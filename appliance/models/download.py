"""One file over HTTP: resumed where a connection broke off, checked as it comes, whole or not there.

What has come so far is in ``NAME.partial`` beside the file, with what identifies it on the server in
``NAME.partial.json``. Only a file whose length and checksum are right gets its own name.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO, Final, Protocol, cast

from appliance.errors import ModelFileError
from appliance.models.paths import PARTIAL, sync_folder

SPARE_BYTES: Final = 64 * 1024 * 1024
"""Room that is left on the disk."""

_CHUNK: Final = 1 << 16
_SLOWEST: Final = 1000
"""Bytes per second, over four times the stall time-out; what is slower has stalled."""
_MOST_ATTEMPTS: Final = 100
_LONGEST_PAUSE_S: Final = 60.0
_AGENT: Final = "appliance-models/1"
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Progress(Protocol):
    """Told how far a file is."""

    def __call__(self, path: str, done: int, total: int | None) -> None:
        """``done`` bytes of ``total`` (None: the server does not say) of the file ``path`` are here."""
        ...


def silent(path: str, done: int, total: int | None) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server.

    Attributes:
        stall_s: a connection without a byte for so long is given up.
        attempts: so many in a row that bring nothing, and the download has failed.
        pause_s: before the second of them; doubled each time.
    """

    stall_s: float = 30.0
    attempts: int = 5
    pause_s: float = 0.5


@dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        path: what messages call it.
        url: of http or https.
        size_bytes: None where nobody knows.
        sha256: "" where nobody knows.
        git_sha1: of a Git blob; where that is all that the hub tells.
        headers: of the request, which go to the host of ``url`` only.
    """

    path: str
    url: str
    size_bytes: int | None = None
    sha256: str = ""
    git_sha1: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fetched:
    """What was fetched; ``resumed_from`` bytes were here before."""

    size_bytes: int
    sha256: str
    resumed_from: int


class _Passing(Exception):
    """It may go better next time; ``after_s`` is when the server asks for it."""

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        self.after_s = after_s
        super().__init__(message)


class _Restart(Exception):
    """What is here is of no use: from the beginning, at once."""


def fetch(wanted: Wanted, target: Path, *, patience: Patience | None = None, progress: Progress = silent) -> Fetched:
    """Fetch ``wanted`` to ``target``, whose folder exists.

    Raises:
        ModelFileError: the server does not have it, stopped answering for good, or what it has is not what is wanted.
            What came of the right file is kept, for the next time; what is wrong is removed.
    """
    patience = patience or Patience()
    download = _Download(wanted, target, patience, progress)
    failures = restarts = 0
    for _ in range(_MOST_ATTEMPTS):
        before = download.have
        try:
            download.attempt()
            return Fetched(download.have, download.publish(), download.resumed_from)
        except _Restart as reason:
            restarts += 1
            download.begin_anew()
            if restarts > 2:
                raise ModelFileError(f"{wanted.url}: {reason}; what came was removed") from None
        except _Passing as problem:
            failures = 0 if download.have > before else failures + 1
            if failures >= patience.attempts:
                raise ModelFileError(_given_up(wanted, download, problem)) from None
            time.sleep(min(max(patience.pause_s * 2 ** max(failures - 1, 0), problem.after_s), _LONGEST_PAUSE_S))
    raise ModelFileError(_given_up(wanted, download, _Passing(f"the connection broke {_MOST_ATTEMPTS} times")))


def _given_up(wanted: Wanted, download: _Download, problem: _Passing) -> str:
    kept = (
        f"; the first {_mb(download.have)} are kept, and the same command goes on from there" if download.have else ""
    )
    return f"{wanted.url}: {problem}{kept}"


class _Download:
    """One file's partial state, on the disk and as running checksums."""

    def __init__(self, wanted: Wanted, target: Path, patience: Patience, progress: Progress) -> None:
        self._wanted = wanted
        self._target = target
        self._patience = patience
        self._progress = progress
        self._partial = target.with_name(target.name + PARTIAL)
        self._notes = target.with_name(target.name + PARTIAL + ".json")
        self._sha256 = hashlib.sha256()
        self._etag = ""
        self._total = wanted.size_bytes
        self.have = self.resumed_from = 0
        self._take_up()

    def attempt(self) -> None:
        """One request, to the end of the file."""
        if self._total is not None and self.have == self._total:
            return  # a run before this one was cut off between the last byte and the check
        began = self.have
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **self._wanted.headers}
        if self.have:
            headers["Range"] = f"bytes={self.have}-"
            if self._etag:
                headers["If-Range"] = self._etag
        request = urllib.request.Request(self._wanted.url)
        with _opened(request, headers, self._patience.stall_s, where=self._wanted.path) as response:
            self._begin(response)
            self._copy(response)
        if self._total is not None and self.have < self._total:
            raise _Passing(f"the connection broke off at {_of(self.have, self._total)}")
        if self.have == began == 0 and self._total is None:
            raise _Passing("the server sent nothing")

    def begin_anew(self) -> None:
        """Forget what is here."""
        self._partial.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)
        self._sha256 = hashlib.sha256()
        self._etag, self._total = "", self._wanted.size_bytes
        self.have = self.resumed_from = 0

    def publish(self) -> str:
        """Check the whole file and give it its name; the SHA-256."""
        found = self._sha256.hexdigest()
        wrong = ""
        if self._wanted.size_bytes is not None and self.have != self._wanted.size_bytes:
            wrong = f"{self.have} bytes came instead of {self._wanted.size_bytes}"
        elif self._wanted.sha256 and found != self._wanted.sha256:
            wrong = f"its SHA-256 is {found[:12]}... instead of {self._wanted.sha256[:12]}..."
        elif self._wanted.git_sha1 and git_sha1(self._partial) != self._wanted.git_sha1:
            wrong = "its Git checksum is not the one that the hub states"
        if wrong and self.resumed_from:
            raise _Restart(f"what was here and what came do not make the file that is wanted ({wrong})")
        if wrong:
            self.begin_anew()
            raise ModelFileError(
                f"{self._wanted.url} is not the file that is wanted ({wrong}): damaged on the way, or another one; "
                "what came was removed. Pull again, and if that fails too, the source is wrong"
            )
        self._partial.replace(self._target)
        self._notes.unlink(missing_ok=True)
        sync_folder(self._target.parent)
        return found

    def _take_up(self) -> None:
        """Go on with what an earlier run has left, if it is of this file."""
        try:
            notes = json.loads(self._notes.read_text("utf-8"))
            known = notes["url"] == self._wanted.url and isinstance(notes["etag"], str)
            size = self._partial.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            known, size, notes = False, 0, {}
        checkable = bool(self._wanted.sha256 or self._wanted.git_sha1)
        too_long = self._wanted.size_bytes is not None and size > self._wanted.size_bytes
        if not known or not size or too_long or not (notes["etag"] or checkable):
            self.begin_anew()
            return
        with self._partial.open("rb") as file:
            while chunk := file.read(1 << 20):
                self._sha256.update(chunk)
                self.have += len(chunk)
        self._etag, self.resumed_from = notes["etag"], self.have

    def _begin(self, response: Any) -> None:
        """Read the head of a response: where its body begins, and whether there is room for it."""
        headers: Message = response.headers
        length = _number(headers.get("Content-Length"))
        etag = headers.get("ETag", "")
        etag = "" if etag.startswith("W/") else etag
        if headers.get_content_type() == "text/html" and not self._wanted.path.endswith((".html", ".htm")):
            raise ModelFileError(
                f"{self._wanted.url} answers with a web page, not with a file; is there a log-in or a proxy before it?"
            )
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            start, total = _content_range(headers.get("Content-Range", ""))
            if start != self.have or (etag and self._etag and etag != self._etag):
                raise _Restart("the server goes on with another part than was asked for")
            etag = etag or self._etag
        else:
            if self.have:
                self.begin_anew()  # it cannot resume, or has another file now
            total = length
        wanted = self._wanted.size_bytes
        if wanted is not None and total is not None and total != wanted:
            self.begin_anew()
            raise ModelFileError(
                f"{self._wanted.url} has {total} bytes instead of {wanted}: it is not the file that is wanted"
            )
        self._total = total if total is not None else wanted
        self._etag = etag
        require_room(self._target.parent, max((self._total or 0) - self.have, 0), self._wanted.path)
        self._notes.write_text(json.dumps({"url": self._wanted.url, "etag": etag}), "utf-8")

    def _copy(self, response: Any) -> None:
        since, came = time.monotonic(), 0
        self._progress(self._wanted.path, self.have, self._total)
        with self._writing() as file:
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except TimeoutError:
                    raise _Passing(f"no byte came for {self._patience.stall_s:g} s {self._at()}") from None
                except (OSError, http.client.HTTPException) as error:
                    raise _Passing(f"the connection broke off {self._at()} ({_words(error)})") from None
                if not chunk:
                    break
                if self._total is not None and self.have + len(chunk) > self._total:
                    raise _Restart(f"the server sends more than the {self._total} bytes of the file")
                file.write(chunk)
                self._sha256.update(chunk)
                self.have += len(chunk)
                came += len(chunk)
                self._progress(self._wanted.path, self.have, self._total)
                waited = time.monotonic() - since
                if waited > 4 * self._patience.stall_s:
                    if came < _SLOWEST * waited:
                        raise _Passing(f"only {came} bytes came in {waited:.0f} s {self._at()}")
                    since, came = time.monotonic(), 0

    def _at(self) -> str:
        return f"at {_of(self.have, self._total)}"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[BinaryIO]:
        """The partial file, whose length is ``have`` on the disk too, however this ends."""
        try:
            with self._partial.open("ab") as file:
                try:
                    yield file
                finally:
                    file.flush()
                    os.fsync(file.fileno())
        except (TimeoutError, _Passing, _Restart):
            raise
        except OSError as error:
            self.begin_anew()
            raise ModelFileError(
                f"{self._partial} cannot be written ({error.strerror}); make room, or name another folder"
            ) from error


def _opened(request: urllib.request.Request, headers: Mapping[str, str], timeout_s: float, *, where: str) -> Any:
    """The response to a request.

    Raises:
        _Passing, _Restart, ModelFileError: as :func:`fetch` has it.
    """
    for name, value in headers.items():
        request.add_header(name, value)
    try:
        return _OPENER.open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            _refused(request.full_url, error, where)
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ModelFileError(
                f"{request.full_url}: the server's certificate is not trusted ({error.reason.verify_message}); set "
                "SSL_CERT_FILE if your network has an authority of its own"
            ) from error
        raise _Passing(f"cannot be reached ({_words(error.reason)})") from error
    except TimeoutError:
        raise _Passing(f"no answer came for {timeout_s:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"the connection failed ({_words(error)})") from error
    except ValueError as error:
        raise ModelFileError(f"{request.full_url} is no URL ({error})") from error


def _refused(url: str, error: urllib.error.HTTPError, where: str) -> None:
    code = error.headers.get("X-Error-Code", "")
    said = error.headers.get("X-Error-Message", "")[:300]
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise _Restart("what is here is longer than the file on the server")
    if error.code in _PASSING:
        raise _Passing(f"the server answers {error.code} {error.reason}", _retry_after(error.headers))
    if code == "GatedRepo" or error.code in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
        raise ModelFileError(
            f"{url}: the server wants to know who asks ({error.code}{f', {said}' if said else ''}); accept the model's "
            "terms on its page if it has any, make a token there, and set HF_TOKEN to it"
        )
    if error.code in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
        what = {
            "RepoNotFound": "there is no such repository",
            "RevisionNotFound": "there is no such revision",
            "EntryNotFound": f"the repository has no file {where}",
        }.get(code, "there is no such file")
        raise ModelFileError(f"{url}: {what} ({error.code})")
    raise ModelFileError(f"{url}: the server answers {error.code} {error.reason}{f' ({said})' if said else ''}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but tells no other host who asks, and leaves no encryption behind."""

    max_redirections = 5

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme != "https"):
            raise ModelFileError(f"{req.full_url} redirects to {newurl}, which is not encrypted; it was not followed")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            request.remove_header("Authorization")
        return request


_OPENER: Final = urllib.request.build_opener(_Redirects)


def read_json(url: str, *, headers: Mapping[str, str], patience: Patience, most_bytes: int) -> Any:
    """The JSON at ``url``.

    Raises:
        ModelFileError: the server has none, does not answer, or answers with something else.
    """
    problem: _Passing | None = None
    for attempt in range(patience.attempts):
        if attempt:
            after_s = problem.after_s if problem else 0.0
            time.sleep(min(max(patience.pause_s * 2 ** (attempt - 1), after_s), _LONGEST_PAUSE_S))
        request = urllib.request.Request(url)
        try:
            with _opened(request, {"User-Agent": _AGENT, **headers}, patience.stall_s, where="") as response:
                data = _read(cast(BinaryIO, response), most_bytes, patience.stall_s)
            return json.loads(data)
        except _Passing as error:
            problem = error
        except _Restart as error:
            raise ModelFileError(f"{url}: {error}") from None
        except ValueError as error:
            raise ModelFileError(f"{url} does not answer as a hub does ({error}); is HF_ENDPOINT right?") from error
    raise ModelFileError(f"{url}: {problem}")


def _read(response: BinaryIO, most_bytes: int, stall_s: float) -> bytes:
    data = bytearray()
    until = time.monotonic() + 4 * stall_s
    try:
        while chunk := response.read1(_CHUNK):  # type: ignore[attr-defined]
            data += chunk
            if len(data) > most_bytes:
                raise ValueError(f"more than {most_bytes} bytes")
            if time.monotonic() > until:
                raise _Passing(f"the answer was not complete after {4 * stall_s:g} s")
    except TimeoutError:
        raise _Passing(f"no byte came for {stall_s:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Passing(f"the connection broke off ({_words(error)})") from error
    return bytes(data)


def require_room(folder: Path, size_bytes: int, what: str) -> None:
    """See that ``folder``, or what is above it, has room for ``size_bytes``.

    Raises:
        ModelFileError: it has not.
    """
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    free = shutil.disk_usage(there).free
    if size_bytes + SPARE_BYTES > free:
        raise ModelFileError(
            f"there is no room for {what}: it needs {_mb(size_bytes)}, and {_mb(SPARE_BYTES)} are to stay free, but "
            f"{there} has {_mb(free)}; make room, or name another folder with --directory or $APPLIANCE_MODELS"
        )


def git_sha1(path: Path) -> str:
    """The name that Git gives to the file's content."""
    found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def _content_range(value: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", value.strip())
    if match is None:
        raise _Restart(f"the server resumes without saying where (Content-Range: {value!r})")
    return int(match[1]), None if match[3] == "*" else int(match[3])


def _number(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _retry_after(headers: Message) -> float:
    return float(_number(headers.get("Retry-After")) or 0)


def _words(error: object) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.IncompleteRead):
        return "it ended early"
    return str(getattr(error, "strerror", None) or error)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _of(done: int, total: int | None) -> str:
    return _mb(done) if total is None else f"{_mb(done)} of {_mb(total)}"
