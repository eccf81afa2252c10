"""Data commands of the command line: export, import, prune, backup."""

from __future__ import annotations

import csv
import io
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode

import msgspec

from flashflow.backend.activity.batch import MOST_ROWS
from flashflow.backend.app import Backend
from flashflow.backend.cli.export_target import writing_to
from flashflow.backend.cli.process import complain, print_line, reason
from flashflow.backend.cli.server_connection import Server, running
from flashflow.backend.core.clock import SystemClock
from flashflow.backend.core.config import ACTIVITY_FILE, NOTIFICATION_FILE, Config
from flashflow.backend.core.errors import FlashFlowError, StorageError, ValidationError
from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.timezones import workspace_zone
from flashflow.backend.data.formats import Format, What, format_of, unguarded
from flashflow.backend.data.import_activities import ImportedActivityIn, decode_activity, import_activities_write
from flashflow.backend.data.import_notifications import (
    ImportedNotificationIn,
    decode_notification,
    import_notifications_write,
)
from flashflow.backend.data.import_sessions import ImportedSessionIn, decode_session, import_sessions_write
from flashflow.backend.data.parquet import rows_of
from flashflow.backend.data.retention import Kind
from flashflow.backend.schemas.records import BatchResult
from flashflow.backend.schemas.requests import Input, row_json
from flashflow.backend.schemas.values import timestamp_ms
from flashflow.backend.store.engine.backup import back_up, backups_folder, copy_to
from flashflow.backend.store.privacy.export import ExportFilter

READ_S = 60.0
BODY = 900 * 1024
"""Bytes of rows in one request, below the body limit of 1 MiB."""
MOST_LINE = 2 * BODY
"""Bytes or characters read of one line, more than any valid row has."""


# --- export -----------------------------------------------------------------------------------------------------------


def export(
    config: Config,
    *,
    file: str,
    what: What,
    format: str | None,
    user: str | None,
    app: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """``flashflow export``: write to a file, which appears when complete, or to standard output (``-``)."""
    times = {
        name: _parse_time(f"--{name}", text) for name, text in (("since", since), ("until", until)) if text is not None
    }
    form = format_of(file, format)
    server = running(config)
    with writing_to(file) as out:
        if server is not None:
            texts = {name: time.isoformat() for name, time in times.items()}
            filters = {"format": form, "user_id": user, "app": app, **texts}
            query = urlencode({name: value for name, value in filters.items() if value is not None})
            _fetch(server, f"/api/export/{what}?{query}", out)
            return
        bounds = {name: timestamp_ms(name, time) for name, time in times.items()}
        with Backend(config) as backend:
            for piece in backend.exports.rows(what, form, ExportFilter(user_id=user, app=app, **bounds)):
                out.write(piece)


def _parse_time(option: str, text: str) -> datetime:
    """Parse a time, or a day (its start in this machine's zone). Raises ValidationError."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=workspace_zone())
    except ValueError:
        pass
    else:
        return day.astimezone(UTC)
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise ValidationError.of(option, "is neither a day, like 2026-11-22, nor a time with an offset") from None
    if value.tzinfo is None:
        raise ValidationError.of(option, "needs a time with an offset, like 2026-11-22T10:15:30Z")
    return value


def _fetch(server: Server, path: str, out: BinaryIO) -> None:
    with server.proven(READ_S) as connection:
        with server.answering():
            connection.request("GET", path, headers=server.key_header)
            response = connection.getresponse()
            problem = None if response.status == 200 else msgspec.json.decode(response.read())
        if problem is not None:
            raise FlashFlowError(str(problem.get("detail") or problem.get("title")))
        for piece in _pieces(response, server.url):
            out.write(piece)


def _pieces(response: HTTPResponse, url: str) -> Iterator[bytes]:
    """Yield the body in pieces of up to 64 KiB. Raises StorageError for an incomplete body."""
    while True:
        try:
            piece = response.read(64 * 1024)
        except (OSError, HTTPException) as error:
            raise StorageError(f"FlashFlow at {url} broke off: {error!r}. The export is incomplete.") from error
        if not piece:
            return
        yield piece


# --- import -----------------------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """Row of a file as JSON with its line number, or its error."""

    number: int
    row: bytes
    error: ValidationError | None = None


Pairs = Sequence[tuple[str, str]]
"""Field and message of each error of a row."""
Stored = tuple[int, int, Sequence[tuple[int, Pairs]]]
"""Result of a batch: number of rows stored and already known, and the index and errors of each refused row."""


class ImportKind(NamedTuple):
    """Kind of importable rows: decoder, record with the column names, and the function that stores a batch."""

    decode: Callable[[bytes], object]
    record: type[Input]
    store: Callable[[Backend, Sequence[bytes]], BatchResult]


def _store_activities(backend: Backend, rows: Sequence[bytes]) -> BatchResult:
    return backend.activity.store.run(import_activities_write(backend.activity, rows))


def _store_sessions(backend: Backend, rows: Sequence[bytes]) -> BatchResult:
    return backend.activity.store.run(import_sessions_write(backend.activity, rows))


def _store_notifications(backend: Backend, rows: Sequence[bytes]) -> BatchResult:
    return backend.notifications.store.run(import_notifications_write(backend.notifications.clock, rows))


IMPORT_KINDS: Mapping[What, ImportKind] = {
    "activities": ImportKind(decode_activity, ImportedActivityIn, _store_activities),
    "sessions": ImportKind(decode_session, ImportedSessionIn, _store_sessions),
    "notifications": ImportKind(decode_notification, ImportedNotificationIn, _store_notifications),
}
_JSON_CELLS = ("metadata", "device_info", "data", "actions", "channels", "count")
"""Columns whose cells hold JSON text."""


def import_file(config: Config, *, file: str, format: str | None, what: What) -> int:
    """``flashflow import``: store valid rows, report each invalid row with its line. Return 0, or 1 if a row was
    refused. Raises FlashFlowError."""
    form = format_of(file, format)
    accepted = duplicates = refused = 0
    with _storing(config, what) as store, _lines(file, form, what) as lines:
        for batch in _batches(lines):
            good = [line for line in batch if line.error is None]
            errors: list[tuple[int, Pairs]] = [(line.number, line.error.errors) for line in batch if line.error]
            if good:
                more_accepted, more_duplicates, rejected = store([line.row for line in good])
                accepted, duplicates = accepted + more_accepted, duplicates + more_duplicates
                errors += [(good[index].number, pairs) for index, pairs in rejected]
            refused += len(errors)
            for number, pairs in sorted(errors):
                complain(f"line {number}: " + "; ".join(f"{f}: {m}" if f else m for f, m in pairs))
    print_line(f"{accepted:,} imported, {duplicates:,} were there already, {refused:,} refused.")
    return 1 if refused else 0


@contextmanager
def _storing(config: Config, what: What) -> Iterator[Callable[[Sequence[bytes]], Stored]]:
    """Yield the function that stores a batch: through a running server, else in the file."""
    if server := running(config):

        def post(rows: Sequence[bytes]) -> Stored:
            answer = server.ask("POST", f"/api/import/{what}", b'{"%s":[%s]}' % (what.encode(), b",".join(rows)))
            rejected = [
                (row["index"], [(error["field"], error["message"]) for error in row["errors"]])
                for row in answer["rejected"]
            ]
            return answer["accepted"], answer["duplicates"], rejected

        yield post
        return
    with Backend(config) as backend:

        def store(rows: Sequence[bytes]) -> Stored:
            result = IMPORT_KINDS[what].store(backend, rows)
            return result.accepted, result.duplicates, [(row.index, row.errors) for row in result.rejected]

        yield store


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        if batch and (len(batch) == MOST_ROWS or size + len(line.row) > BODY):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line.row) + 1
    if batch:
        yield batch


@contextmanager
def _lines(name: str, form: Format, what: What) -> Iterator[Iterator[Line]]:
    try:
        if form == "parquet":
            yield _checked(enumerate(map(_of_parquet, rows_of(name)), 1), what)
            return
        with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            yield _checked(_json_lines(file) if form == "jsonl" else _csv_lines(_text(file), what), what)
    except OSError as error:
        raise FlashFlowError(f"{name} cannot be read: {error.strerror or error}.") from error


Read = Iterable[tuple[int, Callable[[], bytes]]]
"""Lines by number, each with a function that returns its JSON or raises ValidationError."""


def _checked(rows: Read, what: What) -> Iterator[Line]:
    decode = IMPORT_KINDS[what].decode
    for number, read in rows:
        try:
            row = read()
            if len(row) > BODY:
                raise ValidationError.of("", "is larger than the limit of a request")
            decode(row)
        except ValidationError as error:
            yield Line(number, b"", error)
        else:
            yield Line(number, row)


def _json_lines(file: BinaryIO) -> Read:
    number = 0
    while line := file.readline(MOST_LINE):
        number += 1
        rest = line
        # The first part of a longer line suffices to refuse it; the rest is skipped, not held in memory.
        while not rest.endswith(b"\n") and (rest := file.readline(MOST_LINE)):
            pass
        text = line.strip(b"\xef\xbb\xbf \t\r\n")
        if text:
            yield number, lambda text=text: text  # type: ignore[misc]


def _text(file: BinaryIO) -> Iterator[str]:
    """Yield lines with their ends (LF, CR LF or CR), which may be part of a cell. Bytes that are not UTF-8 become
    surrogates, so that only their row is refused. Raises ValidationError for a line of MOST_LINE characters."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    number = 0
    while line := text.readline(MOST_LINE):
        number += 1
        if len(line) == MOST_LINE:
            raise ValidationError.of(f"line {number}", "is larger than the limit of a request")
        yield line


def _csv_lines(text: Iterator[str], what: What) -> Read:
    csv.field_size_limit(MOST_LINE)  # global, but this process only imports
    columns = IMPORT_KINDS[what].record.__struct_fields__
    reader = csv.reader(text)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise ValidationError.of("line 1", f"is not valid CSV: {error}") from None
    unknown = [name for name in names if name not in columns]
    if unknown or len(set(names)) < len(names):
        raise ValidationError.of("line 1", f"names no columns of {what}: {', '.join(unknown or names)[:200]}")
    at = reader.line_num
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValidationError.of(f"line {at + 1}", f"is not valid CSV: {error}") from None
        if cells:
            yield at + 1, lambda cells=cells: _of_csv(names, cells)  # type: ignore[misc]
        at = reader.line_num


def _of_csv(names: Sequence[str], cells: Sequence[str]) -> bytes:
    if len(cells) != len(names):
        raise ValidationError.of("", f"has {len(cells)} cells where the first line has {len(names)}")
    return _as_row({name: unguarded(cell) for name, cell in zip(names, cells, strict=True) if cell})


def _of_parquet(row: Mapping[str, Any]) -> Callable[[], bytes]:
    return lambda: _as_row({name: value for name, value in row.items() if value is not None})


def _as_row(row: dict[str, Any]) -> bytes:
    texts = [name for name in _JSON_CELLS if isinstance(row.get(name), str)]
    for name in texts:
        text: str = row[name]
        try:
            row[name] = msgspec.Raw(text.encode())
            msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise ValidationError.of(name, "is not JSON") from None
    try:
        return msgspec.json.encode(row) if texts else row_json(row)
    except UnicodeEncodeError:
        raise ValidationError.of("", "is not UTF-8") from None


# --- prune and backup -------------------------------------------------------------------------------------------------


def prune(config: Config, *, before: str | None, keep_days: int | None, what: Kind, dry_run: bool) -> None:
    """``flashflow prune``: delete old rows, or count them with ``dry_run``; print the numbers."""
    if before is not None:
        cut_off = _parse_time("--before", before)
    else:
        now = datetime.now(UTC)
        cut_off = now.replace(microsecond=now.microsecond // 1000 * 1000) - timedelta(days=keep_days or 0)
    counts = {"activities": 0, "sessions": 0, "notifications": 0}
    if server := running(config):
        more = True
        while more:
            answer = server.ask("POST", "/api/prune", {"before": cut_off.isoformat(), "what": what, "dry_run": dry_run})
            counts = {name: count + answer[name] for name, count in counts.items()}
            more = answer["more"]
    else:
        with Backend(config) as backend:
            work = backend.retention.would_prune if dry_run else backend.retention.prune
            result = work(timestamp_ms("before", cut_off), what)
            counts = {name: getattr(result, name) for name in counts}
    done = "Would prune" if dry_run else "Pruned"
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print_line(f"{done} {listed} from before {cut_off.isoformat()}.")


def backup(config: Config, *, folder: str | None) -> None:
    """``flashflow backup``: copy both files, also while FlashFlow runs; print the paths of the copies."""
    clock = SystemClock()
    found = [path for name in (ACTIVITY_FILE, NOTIFICATION_FILE) if (path := config.data_dir / name).exists()]
    if not found:
        raise FlashFlowError(f"There is nothing to back up in {config.data_dir}.")
    try:
        for path in found:
            target = None if folder is None else Path(folder)
            if target is None or os.path.realpath(target) == os.path.realpath(backups_folder(path)):
                print_line(str(back_up(path, clock, "manual")))
            else:
                print_line(str(copy_to(path, target, clock)))
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"The backup could not be made: {reason(error)}.") from error
