"""An id in a path ends where a known sub-route begins; percent-encoded slashes belong to the id."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flashflow.backend.api.app import ENDPOINTS
from flashflow.backend.api.framework.router import sub_routes
from tests.support.api_client import JSON, contents, fresh, ok, problem, raw, track
from tests.support.server_process import ServerProcess, serving

BELOW = [(before, name) for before, names in sub_routes(ENDPOINTS).items() for name in sorted(names)]
METHODS = ("GET", "POST", "PUT", "DELETE")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("ids")) as running:
        for user in ("ada", *(f"ada/{name}" for _, name in BELOW)):
            track(running, user)
        yield running
        assert "Traceback" not in running.log


def test_the_routes_below_an_id_are_known() -> None:
    assert {name for _, name in BELOW} >= {"consent", "contacts", "export", "readmit", "send-now"}


@pytest.mark.parametrize(("before", "name"), BELOW)
@pytest.mark.parametrize("after", ["", "/", "/more"])
def test_no_id_swallows_a_known_sub_route(server: ServerProcess, before: str, name: str, after: str) -> None:
    has = {e.method for e in ENDPOINTS if e.path == f"{before}{{user_id:path}}/{name}"}
    assert has
    before_it = contents(server)
    for method in METHODS:
        if after == "" and method in has:
            continue
        body = None if method in {"GET", "DELETE"} else b"{}"
        answer = raw(server, method, f"{before}ada/{name}{after}", body, JSON)
        if after == "":
            problem(answer, "method_not_allowed")
            assert has <= set(answer.headers["allow"].split(", ")) <= has | {"HEAD"}
        else:
            problem(answer, "not_found")
    assert contents(server) == before_it


@pytest.mark.parametrize("slash", ["%2F", "%2f"])
def test_an_encoded_slash_is_part_of_the_id(server: ServerProcess, slash: str) -> None:
    ok_user = f"{fresh()}/consent"
    track(server, ok_user)
    answer = raw(server, "DELETE", f"/api/users/{ok_user.replace('/', slash)}")
    assert answer.status == 200, answer.text
    assert ok(server.api("GET", "/api/activity", params={"user_id": ok_user}))["activities"] == []


def test_an_id_with_other_slashes_needs_no_encoding(server: ServerProcess) -> None:
    user = f"{fresh()}/team/b"
    track(server, user)
    assert raw(server, "DELETE", f"/api/users/{user}").status == 200
    released = ok(server.api("POST", "/api/notifications/digest/a/b/send-now"))
    assert released["released"] == 0
