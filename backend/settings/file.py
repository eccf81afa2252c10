"""``flashflow.toml`` in the data folder: read, read again when it changes, and written with the owner's words kept."""

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
from typing import Any, NamedTuple

from flashflow.backend.core.errors import Conflict, StorageError, StorageFull, ValidationError
from flashflow.backend.settings.keyring import Keeping, SecretStore, SecretsUnavailable
from flashflow.backend.settings.model import Settings, secret_fields
from flashflow.backend.settings.parser import escaped, is_reference, settings_of, shown, struct_at
from flashflow.backend.settings.toml_editor import MOST, Place, Table, edited, parsed, table_at, with_table

log = logging.getLogger(__name__)

RETRY_POLLS = 15
"""After how many polls a keyring that gave no answer is asked again: half a minute at one poll in two seconds."""

_HEADER = """\
# FlashFlow's settings. What you change here is taken up within seconds.
# ${NAME} stands for an environment variable, $${ for a plain ${.
"""
_TICK_NS = 100_000_000
"""No file system that keeps its times finer than a second counts them coarser than this."""


class Signature(NamedTuple):
    """What tells one state of a file from another without reading it."""

    mtime_ns: int
    size: int
    inode: int


class _File(NamedTuple):
    """What was read; ``signature`` is None where there is no file."""

    text: str
    signature: Signature | None


class SettingsFile:
    """The settings in force and the file they stand in. Thread-safe.

    Whatever is wrong with the file later on, the last good settings stay in force and ``problem`` says what it is.
    """

    def __init__(self, path: Path, *, environ: Mapping[str, str], secrets: SecretStore) -> None:
        self._path = path
        self._environ = environ
        self._secrets = secrets
        self._lock = threading.RLock()
        self._problem: str | None = None
        self._settings = self._told = Settings()
        self._tables: Table = {}
        self._seen: Signature | None = None
        self._recent = False  # read so soon after it was written that another write may bear the same time
        self._emptied: Signature | bool | None = False
        self._retry_in: int | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong with the file as it stands, for people; None while it is in force."""
        return self._problem

    @property
    def settings(self) -> Settings:
        """What is in force: what was last read or saved without a mistake, the defaults before that."""
        return self._settings

    def load(self) -> Settings:
        """Read the file now; none is the defaults. A mode that lets others read it is tightened.

        Raises ValidationError with each mistake's dotted place, or the line where it is no TOML.
        """
        with self._lock:
            self._read_again(self._read())
            self._told = self._settings
            return self._settings

    def changed(self) -> bool:
        """Whether the file looks other than when it was last read."""
        return self._signature() != self._seen

    def poll(self) -> Settings | None:
        """The settings, if they are others than ``load`` or ``poll`` last returned. Raises nothing.

        Costs one ``stat`` while nothing changes. A file that is suddenly gone or empty is believed the second time: an
        editor may be about to write it.
        """
        with self._lock:
            if self.changed() or self._recent or self._is_time_to_retry():
                with contextlib.suppress(ValidationError):
                    file = self._read()
                    if not self._may_be_half_written(file):
                        self._read_again(file)
            if self._settings == self._told:
                return None
            self._told = self._settings
            return self._settings

    def save(self, place: str, values: Mapping[str, object] | None) -> Settings:
        """Write the table at ``place`` (``"channels.email"``, or ``""`` for what stands above all tables); None
        removes it.

        ``values`` are by the file's own names, strings with references as the file has them; what is None or left out
        goes, except that a secret then stays as it is (``""`` removes it). A secret that is not one reference is taken
        literally, into the keyring where one works, else into the file. Returns the settings now in force; the next
        ``poll`` returns them too. Raises ValidationError, Conflict and StorageError, the file being as it was.
        """
        keys: Place = tuple(place.split(".")) if place else ()
        if keys and struct_at(keys) is None:
            raise ValidationError.of(place, "is not a table of flashflow.toml")
        with self._lock:
            file = self._read()
            tables = parsed(file.text)
            before = table_at(tables, keys) or {}
            wanted, literals = _wanted(keys, before, {} if values is None and not keys else values)
            settings = settings_of(with_table(tables, keys, wanted), self._lookup())
            if wanted is None and table_at(tables, keys) is None:
                self._take(settings, tables, file.signature)
                return settings
            keeping = Keeping(self._secrets)
            try:
                for field, value in literals.items():
                    if wanted is not None and keeping.put(_kept_as(keys, field), value):
                        wanted[field] = _reference(keys, field)
                text = edited(file.text or _HEADER, keys, wanted)
                if self._signature() != file.signature:
                    raise Conflict("flashflow.toml was changed by someone else just now; please look and try again.")
                _write(self._path, text)
            except BaseException:
                keeping.undo()
                raise
            self._take(settings, parsed(text), self._signature())
            self._forget(keys, before, wanted or {})
            return settings

    def shown(self) -> dict[str, Any]:
        """What is in force, in the file's shape, for the settings screen and for answers: a secret is ``"set"`` or
        None, a reference stands as written."""
        with self._lock:
            return shown(self._settings, self._tables)

    # --- reading ---

    def _read_again(self, file: _File) -> None:
        lookup = self._lookup()
        self._retry_in = None
        try:
            tables = parsed(file.text)
            settings = settings_of(tables, lookup)
        except ValidationError as error:
            self._retry_in = RETRY_POLLS if lookup.refused else None
            self._note(str(error), file.signature)
            raise
        self._take(settings, tables, file.signature)

    def _take(self, settings: Settings, tables: Table, signature: Signature | None) -> None:
        self._settings, self._tables = settings, tables
        self._note(None, signature)

    def _note(self, problem: str | None, signature: Signature | None) -> None:
        if problem is not None and problem != self._problem:
            log.warning("the settings stay as they were: %s", problem)
        self._problem, self._seen, self._emptied = problem, signature, False
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
            if not stat.S_ISREG(os.stat(self._path).st_mode):  # opening a pipe would wait for someone to write
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

    def _lookup(self) -> _Lookup:
        return _Lookup(self._environ, self._secrets)

    def _forget(self, keys: Place, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        """Take out of the keyring what this table referred to and refers to no more."""
        for field in _secrets_of(keys):
            if before.get(field) == _reference(keys, field) != wanted.get(field):
                try:
                    self._secrets.delete(_kept_as(keys, field))
                except SecretsUnavailable as error:
                    log.warning("a secret that is no longer used is still in the keyring: %s", error)


class _Lookup:
    """The environment and the keyring, for one reading."""

    def __init__(self, environ: Mapping[str, str], secrets: SecretStore) -> None:
        self._environ = environ
        self._secrets = secrets
        self.refused = False

    def variable(self, name: str) -> str | None:
        return self._environ.get(name)

    def secret(self, name: str) -> str | None:
        try:
            return self._secrets.get(name)
        except SecretsUnavailable as error:
            self.refused = True
            raise ValidationError.of("", str(error)) from None


def _wanted(
    keys: Place, before: Mapping[str, Any], values: Mapping[str, object] | None
) -> tuple[Table | None, dict[str, str]]:
    """What the table is to say, and which of its secrets were given literally: for now they stand in it, escaped."""
    if values is None:
        return None, {}
    if not keys and values.keys() - {"allow_hosts"}:
        raise ValidationError.of("", "Above all tables only allow_hosts can stand.")
    secrets = _secrets_of(keys)
    wanted: Table = {}
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
            wanted[name] = list(value) if isinstance(value, tuple) else value
    return wanted, literals


def _secrets_of(keys: Place) -> frozenset[str]:
    kind = struct_at(keys)
    return frozenset() if kind is None else secret_fields(kind)


def _kept_as(keys: Place, field: str) -> str:
    """The name of a table's secret in the keyring: ``email.password``, ``push.fcm.credentials``, ``ntfy.url``."""
    return ".".join((*keys[1:], field))


def _reference(keys: Place, field: str) -> str:
    return f"${{keyring:{_kept_as(keys, field)}}}"


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_mtime_ns, status.st_size, status.st_ino)


def _tighten(status: os.stat_result, path: Path) -> None:
    """The file holds secrets: nobody else is to read it."""
    if os.name == "posix" and status.st_mode & 0o077:
        try:
            os.chmod(path, 0o600)
        except OSError as error:
            log.warning("others on this machine may read flashflow.toml: %s", error.strerror)


def _write(path: Path, text: str) -> None:
    """All or nothing, and nobody else's to read from its first byte on. Raises StorageError."""
    target = Path(os.path.realpath(path))  # a link stays one
    fresh = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)  # of a run that was killed
        with open(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, target)
        _sync_folder(target.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageError
        raise kind(f"flashflow.toml cannot be written: {error.strerror}.") from error


def _sync_folder(folder: Path) -> None:
    """So that the new name outlives a power cut. Windows and some network drives have no fsync of folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)
