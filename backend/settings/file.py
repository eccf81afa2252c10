"""``flashflow.toml`` in the data folder: load, reload after changes, and save with the owner's comments kept."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashflow.backend.core.errors import Conflict, StorageError, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.private_files import write_private
from flashflow.backend.settings.keyring import PendingSecrets, SecretStore, SecretsUnavailable
from flashflow.backend.settings.model import Settings, secret_fields
from flashflow.backend.settings.parser import References, escaped, is_reference, settings_of, shown, struct_at
from flashflow.backend.settings.toml_editor import MOST, Place, Table, edited, parsed, table_at, with_table

log = logging.getLogger(__name__)

RETRY_POLLS = 15
"""Polls until a keyring that did not respond is tried again: half a minute at one poll in two seconds."""

_HEADER = """\
# FlashFlow's settings. Changes take effect within seconds.
# ${NAME} stands for an environment variable, $${ for a literal ${.
"""
_TICK_NS = 100_000_000
"""Resolution of file times; file systems that store fractions of a second are at least this fine."""


class Signature(NamedTuple):
    """State of a file, for detecting changes without reading it."""

    mtime_ns: int
    size: int
    inode: int


class _File(NamedTuple):
    """Content of the file; ``signature`` is None where there is no file."""

    text: str
    signature: Signature | None


class SettingsFile:
    """Active settings and their file. Thread-safe.

    While the file is invalid, the last valid settings stay active and ``problem`` describes the error.
    """

    def __init__(self, path: Path, *, environ: Mapping[str, str], secrets: SecretStore) -> None:
        self._path = path
        self._environ = environ
        self._secrets = secrets
        self._lock = threading.RLock()
        self.problem: str | None = None
        """Error of the current file, for users; None while it is valid."""
        self.settings = self._returned = Settings()
        """Active settings: the last valid ones read or saved, before that the defaults."""
        self._tables: Table = {}
        self._seen: Signature | None = None
        self._recent = False  # read so soon after a write that another write may have the same time
        self._emptied: Signature | bool | None = False
        self._retry_in: int | None = None

    def load(self) -> Settings:
        """Read the file; without one, use the defaults. Restrict its mode to 0600.

        Raises ValidationError with the dotted place of each error, or the line of a TOML error.
        """
        with self._lock:
            self._reload(self._read())
            self._returned = self.settings
            return self.settings

    def changed(self) -> bool:
        """Whether the file has changed since it was last read."""
        return self._signature() != self._seen

    def poll(self) -> Settings | None:
        """Return the settings if they differ from those that ``load`` or ``poll`` last returned. Raises nothing.

        Costs one ``stat`` while nothing changes. A missing or empty file counts only at the second poll, because an
        editor may be writing it.
        """
        with self._lock:
            if self.changed() or self._recent or self._is_time_to_retry():
                with contextlib.suppress(ValidationError):
                    file = self._read()
                    if not self._may_be_half_written(file):
                        self._reload(file)
            if self.settings == self._returned:
                return None
            self._returned = self.settings
            return self.settings

    def save(self, place: str, values: Mapping[str, object] | None) -> Settings:
        """Write the table at ``place`` (``"channels.email"``, or ``""`` for the top level); None removes it.

        ``values`` have the file's names and may contain references. A value that is None or omitted is removed, except
        that a secret then stays unchanged (``""`` removes it). A literal secret goes into the keyring where one works,
        else into the file. Return the settings now active; the next ``poll`` returns them too. Raises ValidationError,
        Conflict and StorageError, with the file unchanged.
        """
        keys: Place = tuple(place.split(".")) if place else ()
        if keys and struct_at(keys) is None:
            raise ValidationError.of(place, "is not a table of flashflow.toml")
        with self._lock:
            file = self._read()
            tables = parsed(file.text)
            before = table_at(tables, keys) or {}
            table, literals = _new_table(keys, before, {} if values is None and not keys else values)
            settings = settings_of(with_table(tables, keys, table), References(self._environ, self._secrets))
            if table is None and table_at(tables, keys) is None:
                self._take(settings, tables, file.signature)
                return settings
            pending = PendingSecrets(self._secrets)
            try:
                for field, value in literals.items():
                    if table is not None and pending.put(_secret_name(keys, field), value):
                        table[field] = _reference(keys, field)
                text = edited(file.text or _HEADER, keys, table)
                if self._signature() != file.signature:
                    raise Conflict("flashflow.toml was changed at the same time; please check it and try again.")
                _write(self._path, text)
            except BaseException:
                pending.undo()
                raise
            self._take(settings, parsed(text), self._signature())
            self._forget(keys, before, table or {})
            return settings

    def shown(self) -> dict[str, Any]:
        """Return the active settings in the file's structure: a secret is ``"set"`` or None, a reference stays
        unresolved."""
        with self._lock:
            return shown(self.settings, self._tables)

    # --- reading ---

    def _reload(self, file: _File) -> None:
        references = References(self._environ, self._secrets)
        self._retry_in = None
        try:
            tables = parsed(file.text)
            settings = settings_of(tables, references)
        except ValidationError as error:
            self._retry_in = RETRY_POLLS if references.refused else None
            self._note(str(error), file.signature)
            raise
        self._take(settings, tables, file.signature)

    def _take(self, settings: Settings, tables: Table, signature: Signature | None) -> None:
        self.settings, self._tables = settings, tables
        self._note(None, signature)

    def _note(self, problem: str | None, signature: Signature | None) -> None:
        if problem is not None and problem != self.problem:
            log.warning("the settings stay as they were: %s", problem)
        self.problem, self._seen, self._emptied = problem, signature, False
        self._recent = signature is not None and signature.mtime_ns > time.time_ns() - _TICK_NS

    def _may_be_half_written(self, file: _File) -> bool:
        if file.text.strip() or not self._tables or self._emptied == file.signature:
            return False
        self._emptied = file.signature
        return True

    def _is_time_to_retry(self) -> bool:
        if self._retry_in is not None:
            self._retry_in -= 1
        return self._retry_in is not None and self._retry_in <= 0

    def _read(self) -> _File:
        try:
            if not stat.S_ISREG(os.stat(self._path).st_mode):  # opening a pipe would block
                raise OSError(errno.EINVAL, "it is not a file")
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                _tighten(status, self._path)
                signature = _signature(status)
                text = file.read(4 * MOST).decode("utf-8-sig")
        except FileNotFoundError:
            return _File("", None)
        except OSError as error:
            problem = f"flashflow.toml cannot be read: {error.strerror}."
        except UnicodeDecodeError:
            problem = "flashflow.toml is not UTF-8."
        else:
            return _File(text, signature)
        self._note(problem, self._signature())
        raise ValidationError.of("", problem)

    def _signature(self) -> Signature | None:
        try:
            return _signature(os.stat(self._path))
        except OSError:
            return None

    def _forget(self, keys: Place, before: Mapping[str, Any], table: Mapping[str, Any]) -> None:
        """Remove secrets from the keyring that this table no longer refers to."""
        for field in _secrets_of(keys):
            if before.get(field) == _reference(keys, field) != table.get(field):
                try:
                    self._secrets.delete(_secret_name(keys, field))
                except SecretsUnavailable as error:
                    log.warning("a secret that is no longer used is still in the keyring: %s", error)


def _new_table(
    keys: Place, before: Mapping[str, Any], values: Mapping[str, object] | None
) -> tuple[Table | None, dict[str, str]]:
    """Return the table's new values and its literal secrets, which the values contain in escaped form."""
    if values is None:
        return None, {}
    if not keys and values.keys() - {"allow_hosts"}:
        raise ValidationError.of("", "Only allow_hosts is allowed outside of tables.")
    secrets = _secrets_of(keys)
    table: Table = {}
    literals: dict[str, str] = {}
    for name in [*values, *(secrets - values.keys())]:
        value = values.get(name)
        if name in secrets and value is None:
            value = before.get(name)
        elif name in secrets and value == "":
            value = None
        elif name in secrets and isinstance(value, str) and not is_reference(value):
            literals[name] = value
            value = escaped(value)
        if value is not None:
            table[name] = list(value) if isinstance(value, tuple) else value
    return table, literals


def _secrets_of(keys: Place) -> frozenset[str]:
    kind = struct_at(keys)
    return frozenset() if kind is None else secret_fields(kind)


def _secret_name(keys: Place, field: str) -> str:
    """Return the name of a table's secret in the keyring: ``email.password``, ``push.fcm.credentials``."""
    return ".".join((*keys[1:], field))


def _reference(keys: Place, field: str) -> str:
    return f"${{keyring:{_secret_name(keys, field)}}}"


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def _tighten(status: os.stat_result, path: Path) -> None:
    """Restrict the file's mode to its owner, because it may contain secrets."""
    if os.name == "posix" and status.st_mode & 0o077:
        try:
            os.chmod(path, 0o600)
        except OSError as error:
            log.warning("others on this machine may read flashflow.toml: %s", error.strerror)


def _write(path: Path, text: str) -> None:
    """Write atomically with mode 0600. Raises StorageError."""
    target = Path(os.path.realpath(path))  # so that a link stays a link
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{target} cannot be used: {error.strerror}.") from error
    write_private(target, text.encode())
