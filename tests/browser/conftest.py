"""One Chromium per test file; each test has its own context without history or cookies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.support import browser


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> Iterator[None]:
    if shutil.which("chromium") is None:  # the test's own fixtures skip it or fail it
        yield
        return
    with browser.sharing_chromium():
        yield
