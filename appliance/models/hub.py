"""A hub of models that speaks Hugging Face's protocol: which files a revision has, and where each is.

``$HF_ENDPOINT`` names another hub than huggingface.co, such as a mirror in one's own network; ``$HF_TOKEN`` says who
asks, for repositories that want to know.
"""

from __future__ import annotations

import fnmatch
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.errors import ModelFileError
from appliance.models.catalogue import HubSource
from appliance.models.download import Patience, Wanted, read_json
from appliance.models.paths import safe_path

ENDPOINT_VARIABLE: Final = "HF_ENDPOINT"
TOKEN_VARIABLE: Final = "HF_TOKEN"
DEFAULT_ENDPOINT: Final = "https://huggingface.co"
MOST_FILES: Final = 10_000

_REPOSITORY: Final = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_MOST_BYTES: Final = 64_000_000
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Revision:
    """What a hub has of a source: the commit, and the files that are wanted of it, not empty."""

    commit: str
    files: tuple[Wanted, ...]


def revision(
    source: HubSource, *, commit: str = "", patience: Patience, environ: Mapping[str, str] | None = None
) -> Revision:
    """Ask the hub for the files of ``source``.

    Args:
        source: where to look.
        commit: this one, instead of the source's own revision.
        patience: with the hub.
        environ: where the hub's address and the token are looked up; the process's own by default.

    Raises:
        ModelFileError: there is no such repository or revision, it has none of the files, or the hub does not answer.
    """
    environ = os.environ if environ is None else environ
    endpoint = hub_endpoint(environ)
    if not _REPOSITORY.fullmatch(source.repository):
        raise ModelFileError(f"{source.repository!r} is no repository of a hub; write it as OWNER/NAME")
    headers = token_headers(endpoint, environ)
    wanted_revision = urllib.parse.quote(commit or source.revision, safe="")
    url = f"{endpoint}/api/models/{source.repository}/revision/{wanted_revision}?blobs=true"
    answer = read_json(url, headers=headers, patience=patience, most_bytes=_MOST_BYTES)
    try:
        found = str(answer["sha"])
        siblings = [(str(one["rfilename"]), one) for one in answer["siblings"]]
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"{url} does not answer as a hub does; is {ENDPOINT_VARIABLE} right?") from error
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found):
        raise ModelFileError(f"{url} names no commit ({found[:80]!r}); is {ENDPOINT_VARIABLE} right?")
    base = f"{endpoint}/{source.repository}/resolve/{found}"
    files = tuple(
        _wanted(path, f"{base}/{urllib.parse.quote(name)}", one, headers)
        for name, one in siblings
        for path in (_below(name, source.folder),)
        if path and chosen(path, source.include)
    )
    if not files:
        raise ModelFileError(f"{source} at {found[:12]} has no file like {', '.join(source.include) or '*'}")
    if len(files) > MOST_FILES:
        raise ModelFileError(f"{source} has {len(files)} files; {MOST_FILES} is the most: name those to take")
    return Revision(found, files)


def hub_endpoint(environ: Mapping[str, str]) -> str:
    """The hub's address, without a slash at its end.

    Raises:
        ModelFileError: what is set is none.
    """
    endpoint = (environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/")
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ModelFileError(f"{ENDPOINT_VARIABLE}={endpoint} is no address of a hub; set it to https://HOST")
    return endpoint


def chosen(path: str, include: tuple[str, ...]) -> bool:
    """Whether one of the patterns takes ``path``; without any, all are taken but what is about the repository itself.

    A pattern without a slash takes no file of a folder.
    """
    if not include:
        return not path.startswith(".")
    depth = path.count("/")
    return any(fnmatch.fnmatchcase(path, pattern) and depth == pattern.count("/") for pattern in include)


def _below(name: str, folder: str) -> str:
    """The path below ``folder``; "" if it is elsewhere."""
    safe_path(name)
    if not folder:
        return name
    prefix = folder.strip("/") + "/"
    return name.removeprefix(prefix) if name.startswith(prefix) else ""


def _wanted(path: str, url: str, one: Any, headers: Mapping[str, str]) -> Wanted:
    """What the hub tells of a file: the SHA-256 of large ones, what Git calls the others."""
    large = one.get("lfs") if isinstance(one.get("lfs"), dict) else {}
    size = large.get("size", one.get("size"))
    sha256 = str(large.get("sha256") or "").lower()
    return Wanted(
        path=path,
        url=url,
        size_bytes=size if isinstance(size, int) and size >= 0 else None,
        sha256=sha256 if re.fullmatch(r"[0-9a-f]{64}", sha256) else "",
        git_sha1=str(one.get("blobId") or "") if not large else "",
        headers=headers,
    )


def token_headers(endpoint: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What tells the hub who asks; nothing without a token.

    Raises:
        ModelFileError: the token would go out unencrypted.
    """
    token = environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return {}
    parts = urllib.parse.urlsplit(endpoint)
    if parts.scheme != "https" and parts.hostname not in _LOCAL:
        raise ModelFileError(
            f"{TOKEN_VARIABLE} would go to {endpoint} in the clear; unset it, or set {ENDPOINT_VARIABLE} to https://"
        )
    return {"Authorization": f"Bearer {token}"}
