"""Tests run against the real thing where a user has it. Where it is not installed they are skipped, unless
FLASHFLOW_REQUIRE_REAL=1 says that this machine must have everything."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def require(*binaries: str) -> None:
    """Skip the test, or fail it, when one of these programs is missing."""
    missing = ", ".join(name for name in binaries if shutil.which(name) is None)
    if missing:
        give_up(f"not installed: {missing}")


def give_up(why: str) -> NoReturn:
    """Skip the test, or fail it, for want of something real."""
    if os.environ.get("FLASHFLOW_REQUIRE_REAL") == "1":
        pytest.fail(f"FLASHFLOW_REQUIRE_REAL=1, but {why}", pytrace=False)
    pytest.skip(why)
