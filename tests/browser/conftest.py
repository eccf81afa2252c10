"""One Chromium, one server and one loaded page per file; no data is left between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.browser import ENVIRONMENT, ME, Beginning, Screen, browsing
from tests.support.real_parts import require
from tests.support.server_process import ServerProcess, serving


@pytest.fixture(scope="module")
def beginning() -> Beginning:
    return Beginning("Dashboard")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The file's server."""
    require("chromium")
    with serving(tmp_path_factory.mktemp("server") / "data", ui=True, env=ENVIRONMENT) as running:
        yield running


@pytest.fixture(scope="module")
def page(server: ServerProcess, beginning: Beginning) -> Iterator[Screen]:
    """The file's page, loaded once: most of the 4.5 CPU-seconds of a new one compile the UI's WebAssembly."""
    with browsing(height=beginning.height) as opened:
        opened.open(server.launch_link)
        yield opened


@pytest.fixture
def _nothing_stored(server: ServerProcess) -> Iterator[None]:
    """Erase all users after the test: activities, notifications, preferences, contacts, devices."""
    yield
    known = {activity["user_id"] for activity in server.everything("/api/activity", "activities")}
    for user in {ME, *known}:
        assert server.api("DELETE", f"/api/users/{user}", params={"even_if_unknown": True}).status_code == 200
        assert server.api("POST", f"/api/users/{user}/readmit").status_code == 200


@pytest.fixture
def screen(_nothing_stored: None, page: Screen, beginning: Beginning) -> Iterator[Screen]:
    """The file's page where its tests begin."""
    page.begin(beginning.place)
    page.find("button", "Notifications, none unread")
    yield page
    strays, noise = page.strays, page.noise.copy()
    page.forget_complaints()
    assert strays == [], "requests left this machine"
    assert noise == [], "the browser's console shows errors"
