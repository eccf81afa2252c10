"""Files of older schemas: those in tests/data were filled by the code of commit 324aca6, every table of them."""

from __future__ import annotations

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from tests.support.server_process import ROOT

_STATE = ("figures_state", "pruned", "rule_mark", "tombstone_salt", "highest_revision")
"""Tables of one row, which an empty file has too."""


def write_old_file(name: Literal["user_activities", "notifications"], path: Path, *, empty: bool = False) -> None:
    """Write the file ``name`` of 324aca6 to ``path``; ``empty``: without its rows."""
    path.write_bytes(gzip.decompress((ROOT / "tests" / "data" / f"{name}.324aca6.db.gz").read_bytes()))
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
