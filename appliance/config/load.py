"""Reading ``appliance.yaml``, ``secrets.yaml`` and the overrides of the command line."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import SecretStr

from appliance.config.marks import MAX_NODES, Document, dotted, parse
from appliance.config.marks import Path as KeyPath
from appliance.config.marks import Secrets as LookUp
from appliance.config.settings import Settings, conflicts
from appliance.config.trunks import SipTrunk
from appliance.config.validation import Section, locate, nearest, validate
from appliance.errors import ConfigError, Mistake

M = TypeVar("M", bound=Section)

SECRETS_FILE = "secrets.yaml"
SECRET_VARIABLE = "APPLIANCE_SECRET_"
MAX_FILE_BYTES = 4_000_000

_EMBEDDED = "(embedded default)"
_OVERRIDE = "--set"


def read_document(
    path: Path,
    *,
    secrets: LookUp | None = None,
    secret_at: Callable[[KeyPath], bool] | None = None,
    typed: bool = True,
    max_bytes: int = MAX_FILE_BYTES,
    max_nodes: int = MAX_NODES,
) -> Document:
    """The file as plain data with line numbers; what is wrong is in the result's ``mistakes``."""
    name = display_name(path)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        problem = (error.strerror or "unreadable").lower()
        return Document(name, mistakes=[Mistake(name, 1, "file", f"cannot be read: {problem}", "check its path")])
    if len(data) > max_bytes:
        what = f"is larger than {max_bytes} bytes"
        return Document(name, mistakes=[Mistake(name, 1, "file", what, "split it, or check that it is the right file")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Document(name, mistakes=[Mistake(name, line, "file", "is not UTF-8 text", "save it as UTF-8")])
    return parse(text, name, secrets=secrets, secret_at=secret_at, typed=typed, max_nodes=max_nodes)


def shown_files(folder: Path) -> list[Path]:
    """The ``*.yaml`` files of a folder, in order, but for hidden ones: editors leave locks there that are no files."""
    return sorted(file for file in folder.glob("*.yaml") if not file.name.startswith("."))


def display_name(path: Path) -> str:
    """The path as an operator would type it: relative where it is below the working directory."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def load_settings(path: Path | None, overrides: list[str], *, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the box.

    Args:
        path: ``appliance.yaml``; None for the embedded default.
        overrides: ``KEY=VALUE`` each, the key dotted, the value YAML; later ones win.
        environ: where ``APPLIANCE_SECRET_NAME`` is looked up; the process's own by default.

    Raises:
        ConfigError: with every mistake in the file, its secrets and the overrides.
    """
    settings, mistakes = examine_settings(path, overrides, environ=environ)
    if mistakes or settings is None:
        raise ConfigError(mistakes)
    return settings


def examine_settings(
    path: Path | None, overrides: list[str], *, environ: Mapping[str, str] | None = None
) -> tuple[Settings | None, list[Mistake]]:
    """As :func:`load_settings`, but with what could be made of the settings beside the mistakes."""
    beside = path.parent / SECRETS_FILE if path is not None else None
    secrets = SecretSource(beside, os.environ if environ is None else environ)
    document = Document(_EMBEDDED, {}) if path is None else read_document(path, secrets=secrets)
    mistakes = document.mistakes
    if document.data is None and not mistakes:
        document.data = {}
    if not isinstance(document.data, dict):
        if not mistakes:
            mistakes.append(document.mistake((), "must hold `key: value` lines", "see docs/configuration.md"))
        return None, mistakes
    for number, assignment in enumerate(overrides, 1):
        _override(document, assignment, number, secrets)
    reported = {(m.file, m.line, m.key) for m in mistakes}
    checked = validate(Settings, document)
    # A value that could not be read (an unknown secret, say) is absent; that is already said.
    mistakes += [m for m in checked.mistakes if (m.file, m.line, m.key) not in reported]
    mistakes += secrets.mistakes
    if checked.value is None:
        return None, mistakes
    for key, what, hint in conflicts(checked.value):
        mistakes.append(_conflict(document, key, what, hint))
    settings = _with_paths(checked.value, document, path)
    return settings, mistakes + _unreadable_files(settings)


def _conflict(document: Document, key: KeyPath, what: str, hint: str) -> Mistake:
    return Mistake(*document.origin(locate(document.data, key)), dotted(key), what, hint)


def _with_paths(settings: Settings, document: Document, path: Path | None) -> Settings:
    """Files and folders named in the file lie beside it; what an override names, in the working directory."""

    def beside(key: KeyPath, item: Path | None) -> Path | None:
        if path is None or item is None:
            return item
        from_file = key in document.origins and document.origin(key)[0] != _OVERRIDE
        return path.parent / item.expanduser() if from_file else item

    def files(section: M, key: KeyPath, *names: str) -> M:
        return section.model_copy(update={name: beside((*key, name), getattr(section, name)) for name in names})

    update: dict[str, Any] = {}
    for name in ("dialplans", "plugins"):
        section = getattr(settings, name)
        found = tuple(beside((name, "paths", index), item) for index, item in enumerate(section.paths))
        update[name] = section.model_copy(update={"paths": found})
    update["media"] = files(settings.media, ("media",), "hold_music")
    sip = tuple(files(one, ("listen", "sip", index), "cert", "key") for index, one in enumerate(settings.listen.sip))
    update["listen"] = settings.listen.model_copy(update={"sip": sip})
    update["trunks"] = {
        name: trunk.model_copy(update={"tls": files(trunk.tls, ("trunks", name, "tls"), "ca", "cert", "key")})
        if isinstance(trunk, SipTrunk)
        else trunk
        for name, trunk in settings.trunks.items()
    }
    if settings.secrets_file is not None:
        update["secrets_file"] = beside(("secrets_file",), settings.secrets_file)
    elif path is not None:
        update["secrets_file"] = path.parent / SECRETS_FILE
    settings = settings.model_copy(update=update)
    settings._document = document
    return settings


def _unreadable_files(settings: Settings) -> list[Mistake]:
    """Files the settings name that cannot be opened."""
    named: list[tuple[str, Path | None]] = [("media.hold_music", settings.media.hold_music)]
    for index, one in enumerate(settings.listen.sip):
        named += [(f"listen.sip.{index}.cert", one.cert), (f"listen.sip.{index}.key", one.key)]
    for name, trunk in settings.sip_trunks.items():
        named += [(f"trunks.{name}.tls.{key}", getattr(trunk.tls, key)) for key in ("ca", "cert", "key")]
    found: list[Mistake] = []
    for key, file in named:
        if file is None:
            continue
        try:
            file.open("rb").close()
        except OSError as error:
            problem = (error.strerror or "unreadable").lower()
            found.append(settings.mistake(key, f"{display_name(file)} cannot be read: {problem}", "check its path"))
    return found or list(_unusable_certificates(settings))


def _unusable_certificates(settings: Settings) -> Iterator[Mistake]:
    """Certificates and keys that can be read, and are none or do not belong together."""
    pairs: list[tuple[str, Path | None, Path | None]] = [
        (f"listen.sip.{index}.cert", one.cert, one.key) for index, one in enumerate(settings.listen.sip)
    ]
    pairs += [(f"trunks.{name}.tls.cert", trunk.tls.cert, trunk.tls.key) for name, trunk in settings.sip_trunks.items()]
    for key, cert, private in pairs:
        if cert is None or private is None:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, private, password=lambda: "")
        except (ssl.SSLError, OSError) as error:
            what = (
                f"{display_name(cert)} and {display_name(private)} are not a certificate and its key: {_words(error)}"
            )
            yield settings.mistake(key, what, "both are PEM files; the key is without a passphrase")
    for name, trunk in settings.sip_trunks.items():
        if trunk.tls.ca is None:
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(trunk.tls.ca)
        except (ssl.SSLError, OSError) as error:
            what = f"{display_name(trunk.tls.ca)} holds no certificates: {_words(error)}"
            yield settings.mistake(f"trunks.{name}.tls.ca", what, "name a PEM file of the authorities trusted")


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM data").lower().replace("_", " ")
    return (error.strerror or str(error)).lower()


def _override(document: Document, assignment: str, number: int, secrets: LookUp) -> None:
    key, equals, text = assignment.partition("=")
    parts: KeyPath = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    here = (_OVERRIDE, number)
    if not equals or not all(isinstance(part, int) or part for part in parts):
        what, hint = f"{key!r} is not KEY=VALUE", "write --set listen.sip.0.port=5070"
        document.mistakes.append(Mistake(*here, "override", what, hint))
        return
    value = parse(text, _OVERRIDE, secrets=secrets)
    if value.mistakes:
        document.mistakes += [Mistake(*here, dotted(parts), m.what, m.hint) for m in value.mistakes]
        return
    if not _place(document, parts, value.data):
        hint = "list items count from 0; see docs/configuration.md"
        document.mistakes.append(Mistake(*here, dotted(parts), "there is no such key to override", hint))
        return
    for known in [known for known in document.origins if known[: len(parts)] == parts]:
        del document.origins[known]
    for inner in value.origins:
        document.origins[(*parts, *inner)] = here
    for length in range(1, len(parts) + 1):
        document.origins.setdefault(parts[:length], here)


def _place(document: Document, parts: KeyPath, value: Any) -> bool:
    """Set ``parts`` in the data. What the file leaves to its default is filled in from the default on the way."""
    data, default = document.data, _defaults()
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        default = _step(default, part)
        if isinstance(data, dict):
            key = str(part)
            if last:
                data[key] = value
                return True
            if not isinstance(data.get(key), dict | list):
                data[key] = default if isinstance(default, dict | list) else {}
            data = data[key]
        elif isinstance(data, list) and isinstance(part, int) and part <= len(data):
            if part == len(data):
                data.append({})
            if last:
                data[part] = value
                return True
            data = data[part]
        else:
            return False
    return False


def _step(data: Any, part: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(str(part))
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None


def _defaults() -> Any:
    dumped = Settings().model_dump(mode="json", by_alias=True)
    for derived in ("store", "runtime_dir", "models_dir"):
        dumped.pop(derived)
    return dumped


def secrets_of(settings: Settings, environ: Mapping[str, str] | None = None) -> SecretSource:
    """Where ``!secret`` of dialplans and plugins is looked up: where that of the settings is."""
    return SecretSource(settings.secrets_file, os.environ if environ is None else environ)


class SecretSource:
    """Looks a name up in the environment, then in a file of ``NAME: value`` lines.

    Args:
        file: it is read when it is first needed, and need not exist.
        environ: holds ``APPLIANCE_SECRET_NAME``.

    Attributes:
        mistakes: what is wrong with the file.
    """

    def __init__(self, file: Path | None, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._known: dict[str, str] | None = None
        self.mistakes: list[Mistake] = []

    def __call__(self, name: str) -> SecretStr | str:
        variable = SECRET_VARIABLE + name.upper().replace("-", "_")
        if variable in self._environ:
            return SecretStr(self._environ[variable])
        if self._known is None:
            self._known = self._read()
        if name in self._known:
            return SecretStr(self._known[name])
        where = f"add it to {SECRETS_FILE} beside the configuration, or set {variable}"
        close = nearest(name, self._known)
        return f"{close} Or {where}" if close.startswith("did you mean") else where

    def _read(self) -> dict[str, str]:
        if self._file is None or not self._file.exists():
            return {}
        document = read_document(self._file, typed=False)
        self.mistakes += document.mistakes
        if document.data is None:
            return {}
        if not isinstance(document.data, dict):
            self.mistakes.append(document.mistake((), "must hold `NAME: value` lines"))
            return {}
        for name, value in document.data.items():
            if not isinstance(value, str):
                self.mistakes.append(document.mistake((name,), "must be text", "write one value for each name"))
        return {name: value for name, value in document.data.items() if isinstance(value, str)}
