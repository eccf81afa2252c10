"""Query plans as tests read them."""

from __future__ import annotations

import re


def with_table(sql: str, step: str) -> str:
    """``step`` of the plan of ``sql`` with a scanned table's name in place of its alias."""
    tables = {alias: table for table, alias in re.findall(r'"(\w+)" AS "(\w+)"', sql)}
    return re.sub(r"(?<=^SCAN )\w+", lambda found: tables.get(found[0], found[0]), step)
