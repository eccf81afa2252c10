"""State of files and threads for ``/api/health``: codes and thread names only, no private data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.schema import read_entries


def storage_fault(stores: Sequence[Store]) -> str | None:
    """Return a code for the storage's fault; None when files are readable, writes succeed and no rows are missing."""
    for store in stores:
        try:
            store.read(read_entries)
        except FlashFlowError as error:
            return error.code
        if store.fault is not None:
            return store.fault
    return "rows_missing" if any(store.loss is not None for store in stores) else None


def failing_threads(stores: Sequence[Store], others: Iterable[SupervisedThread | None]) -> tuple[str, ...]:
    """Return the names of failing threads: the writers of ``stores``, and ``others``."""
    threads = [*(thread for store in stores for thread in store.writer.threads), *others]
    return tuple(thread.name for thread in threads if thread is not None and thread.is_failing)
