"""Read and write Parquet with pyarrow (the extra ``parquet``)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from types import ModuleType
from typing import Any, get_args, get_type_hints

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.data.formats import NoParquet, cell_of
from flashflow.backend.schemas.records import Record

GROUP = 20_000
GROUP_BYTES = 4 * 1024 * 1024
"""Bounds of a row group, which is held in memory: rows, and bytes of text."""


def parquet(record: type[Record], slices: Iterable[Sequence[Record]]) -> Iterator[bytes]:
    """Write slices of records as a Parquet file, one row group at a time. Raises NoParquet before the first byte."""
    pa, pq = _pyarrow()
    return _written(pa, pq, record, slices)


def rows_of(path: str) -> Iterator[dict[str, Any]]:
    """Read the rows of a Parquet file. Raises NoParquet, and ValidationError for any other file."""
    pa, pq = _pyarrow()
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1_000):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValidationError.of(path, f"cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise NoParquet from None
    return pyarrow, pyarrow.parquet


def _written(pa: Any, pq: Any, record: type[Record], slices: Iterable[Sequence[Record]]) -> Iterator[bytes]:
    makers = {name: _column(pa, hint) for name, hint in get_type_hints(record).items()}
    schema = pa.schema([(name, kind) for name, (kind, _) in makers.items()])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        columns: dict[str, list[Any]] = {name: [] for name in makers}
        size = 0

        def write() -> bytes:
            writer.write_table(pa.table(list(columns.values()), schema=schema))
            for column in columns.values():
                column.clear()
            return sink.taken()

        for rows in slices:
            for row in rows:
                for name, (_, make) in makers.items():
                    value = make(getattr(row, name))
                    columns[name].append(value)
                    size += len(value) if isinstance(value, str) else 0
            full = size >= GROUP_BYTES or len(columns["id"]) >= GROUP
            size = 0 if full else size
            yield write() if full else b""
        if columns["id"]:
            yield write()
    yield sink.taken()


def _column(pa: Any, hint: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the column's type and the function that converts a field's value to it."""
    kinds = set(get_args(hint)) - {type(None)} or {hint}
    if datetime in kinds:
        return pa.timestamp("ms", tz="UTC"), lambda value: value
    for plain, kind in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if plain in kinds:
            return kind, lambda value: value
    return pa.string(), lambda value: cell_of(value) or None


class _Sink(io.RawIOBase):
    """Collects the bytes that a writer wrote since the last ``taken``."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._at += len(self._parts[-1])
        return len(self._parts[-1])

    def tell(self) -> int:
        return self._at

    def taken(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
