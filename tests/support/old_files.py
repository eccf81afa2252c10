"""Files of older schemas in tests/data, with rows in every table: of commit 324aca6, and of schemas since 100
(``make_old_files``)."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from tests.support.server_process import ROOT

_STATE = ("figures_state", "pruned", "rule_mark", "tombstone_salt", "highest_revision")
"""Tables of one row, which an empty file has too."""


def write_old_file(
    name: Literal["user_activities", "notifications"], path: Path, *, source: str = "324aca6", empty: bool = False
) -> None:
    """Write the file ``name`` of ``source`` to ``path``; ``empty``: without its rows."""
    path.write_bytes(gzip.decompress((ROOT / "tests" / "data" / f"{name}.{source}.db.gz").read_bytes()))
    if not empty:
        return
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for (table,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if table not in _STATE:
                conn.execute(f"DELETE FROM {table}" + (" WHERE name <> ''" if table == "figure_names" else ""))
        if name == "user_activities":
            conn.execute("DELETE FROM pruned")
            conn.execute("INSERT INTO pruned VALUES (0)")
            conn.execute("UPDATE figures_state SET through = 0, counted = NULL, sessions_counted = NULL, writer = NULL")
