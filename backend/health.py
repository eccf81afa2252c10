"""What ``/api/health`` knows of the files and the threads: a word or a name, nothing private."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flashflow.backend.core.errors import FlashFlowError
from flashflow.backend.core.supervised_thread import SupervisedThread
from flashflow.backend.store.engine.database import Store


def storage_fault(stores: Sequence[Store]) -> str | None:
    """None when every file reads, the last writes worked and no rows were missing at the start, else a code."""
    for store in stores:
        try:
            store.read(lambda conn: conn.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone())
        except FlashFlowError as error:
            return error.code
        if store.fault is not None:
            return store.fault
    return "rows_missing" if any(store.loss is not None for store in stores) else None


def failing_threads(stores: Sequence[Store], others: Iterable[SupervisedThread | None]) -> tuple[str, ...]:
    """The names of the threads that ended or failed lately: the writers of ``stores``, and ``others``."""
    threads = [*(thread for store in stores for thread in store.writer.threads), *others]
    return tuple(thread.name for thread in threads if thread is not None and thread.is_failing)
