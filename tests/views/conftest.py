"""Fixtures of the screens' tests: one event loop, and a backend without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashflow.backend import Backend, Config


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    monkeypatch.setenv("FLASHFLOW_KEYRING", "off")
    with Backend(Config(me="ada", data_dir=tmp_path)) as made:
        yield made
