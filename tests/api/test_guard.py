"""Access to the port: programs of this machine, and browsers that followed a launch link."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.api_client import JSON, SEND, TRACK, Raw, contents, fresh, ok, problem, raw
from tests.support.raw_http import Peer
from tests.support.server_process import ServerProcess, flashflow, serving

PAGE = {"Accept": "text/html,application/xhtml+xml"}
BODY = json.dumps({"user_id": "ada", "activity_type": "x"}).encode()
SCREENS = ["/", "/index.html", "/main.dart.js", "/ws", "/manifest.json", "/docsx", "/docs/", "/docs/ws", "/nothing"]
SOCKETS = ["/ws", "/", "/docs/ws", "/docsws", "/api/ws", "/api/stream", "/api/../ws", "/launch/ws", "/openapi.json/ws"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("guard"), ui=True) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def admitted(server: ServerProcess) -> str:
    """The Cookie header of a browser that followed a launch link."""
    return cookie(follow(server, new_link(server)))


def new_link(server: ServerProcess) -> str:
    url: str = ok(server.api("POST", "/api/launch"), 201)["url"]
    assert url.startswith(f"{server.url}/launch/")
    return url


def follow(server: ServerProcess, link: str, method: str = "GET", **headers: str) -> httpx.Response:
    return httpx.request(method, link, headers=headers, trust_env=False, timeout=20)


def cookie(answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    return str(answer.headers["set-cookie"]).partition(";")[0]


def socket_status(server: ServerProcess, path: str, origin: str | None, **headers: str) -> int:
    """Return the status of a WebSocket handshake: 101, or the refusal."""
    url = f"ws://127.0.0.1:{server.port}{path}"
    try:
        with connect(url, origin=origin, additional_headers=headers, proxy=None, open_timeout=20) as websocket:  # type: ignore[arg-type]
            assert websocket.response is not None
            return websocket.response.status_code
    except InvalidStatus as refused:
        return refused.response.status_code


# --- Host


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "LocalHost:{port}"])
def test_our_own_names_are_answered(server: ServerProcess, host: str) -> None:
    assert raw(server, "GET", "/api/health", headers={"Host": host.format(port=server.port)}).status == 200


FOREIGN = [
    "localhost.evil.example:{port}", "evil.example:{port}", "evil.example", "0.0.0.0:{port}", "", " ", "127.0.0.1",
    "localhost", "127.0.0.1:1", "127.0.0.1:{port}0", "127.0.0.1:0{port}", "localhost.:{port}", "127.0.0.1.:{port}",
    "127.0.0.2:{port}", "127.1:{port}", "2130706433:{port}", "0x7f000001:{port}", "[::1]:{port}",
    "[::ffff:127.0.0.1]:{port}", "10.0.0.1:{port}", "192.168.0.1:{port}", "127.0.0.1:{port}, evil.example",
    "evil.example:{port}#127.0.0.1:{port}", "user@127.0.0.1:{port}", "127.0.0.1:{port}/", "null",
    "127.0.0.1.nip.io:{port}", "flashflow.local:{port}", "localhost:{port}:{port}",
]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
def test_another_name_is_refused_whatever_is_asked_for(server: ServerProcess, host: str, admitted: str) -> None:
    before = contents(server)
    headers = {"Host": host.format(port=server.port)}
    for path in ("/api/health", "/api/activity", "/openapi.json", "/docs", "/", "/launch/x", "/nothing"):
        problem(raw(server, "GET", path, headers=headers | {"Cookie": admitted}), "forbidden")
    problem(raw(server, "POST", TRACK, BODY, headers | JSON), "forbidden")
    assert contents(server) == before


def test_a_request_without_a_host_or_with_two_is_refused(server: ServerProcess) -> None:
    own = f"Host: 127.0.0.1:{server.port}\r\n"
    for start, status in (
        (b"GET /api/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /api/health HTTP/1.0\r\n\r\n", 403),
        (f"GET /api/health HTTP/1.1\r\n{own}{own}\r\n".encode(), 400),
        (f"GET /api/health HTTP/1.1\r\n{own}Host: evil.example\r\n\r\n".encode(), 400),
        (f"GET http://evil.example/api/health HTTP/1.1\r\n{own}\r\n".encode(), 400),
    ):
        with closing(Peer(server.port)) as peer:
            answer = peer.send(start).read()
            code = "bad_request" if status == 400 else "forbidden"
            problem(Raw(answer.status, answer.headers, answer.body.decode()), code)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("Origin", "http://evil.example", "http://127.0.0.1:{port}"),
        ("Sec-Fetch-Site", "cross-site", "same-origin"),
        ("Authorization", "Bearer wrong", "Bearer {key}"),
    ],
)
def test_a_header_that_a_check_reads_cannot_be_repeated(server: ServerProcess, name: str, bad: str, good: str) -> None:
    good = good.format(port=server.port, key=server.key)
    for first, second in ((bad, good), (good, bad), (good, good)):
        start = f"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{name}: {first}\r\n{name}: {second}\r\n"
        with closing(Peer(server.port)) as peer:
            answer = peer.send(start.encode() + b"\r\n").read()
        problem(Raw(answer.status, answer.headers, answer.body.decode()), "forbidden")


def test_a_forwarded_host_does_not_stand_in_for_the_real_one(server: ServerProcess) -> None:
    own = f"127.0.0.1:{server.port}"
    headers = {"Host": "evil.example", "X-Forwarded-Host": own, "Forwarded": f"host={own}", "X-Host": own}
    problem(raw(server, "GET", "/api/health", headers=headers), "forbidden")


# --- pages of other sites


ORIGINS = [
    "null", "", "http://evil.example", "https://evil.example", "http://127.0.0.1", "http://127.0.0.1:1",
    "https://127.0.0.1:{port}", "http://localhost.evil.example:{port}", "http://127.0.0.1:{port}.evil.example",
    "http://localhost:{port}", "http://127.0.0.1:{port}/", "file://", "chrome-extension://abc",
    "http://evil.example, http://127.0.0.1:{port}",
]  # fmt: skip


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_of_another_origin_is_refused_with_or_without_a_key(
    server: ServerProcess, origin: str, admitted: str
) -> None:
    before = contents(server)
    headers = {"Origin": origin.format(port=server.port)}
    for path in ("/api/health", "/api/activity", "/openapi.json", "/"):
        problem(raw(server, "GET", path, headers=headers | {"Cookie": admitted}), "forbidden")
    problem(raw(server, "POST", TRACK, BODY, headers | JSON), "forbidden")
    problem(raw(server, "POST", TRACK, BODY, headers | {"Content-Type": "text/plain"}), "forbidden")
    assert contents(server) == before


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything", "CROSS-SITE"])
def test_a_request_marked_as_cross_site_is_refused(server: ServerProcess, site: str, admitted: str) -> None:
    headers = {"Sec-Fetch-Site": site, "Cookie": admitted}
    for method, path in (("GET", "/"), ("GET", "/api/activity"), ("POST", TRACK)):
        problem(raw(server, method, path, BODY if method == "POST" else None, headers | JSON), "forbidden")


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_our_own_page_and_the_address_bar_are_let_through(server: ServerProcess, site: str) -> None:
    headers = {"Origin": server.url, "Sec-Fetch-Site": site}
    assert raw(server, "GET", "/api/activity", headers=headers).status == 200


def test_a_link_on_another_site_does_not_use_a_launch_link_up(server: ServerProcess) -> None:
    link = new_link(server)
    problem(follow(server, link, **{"Sec-Fetch-Site": "cross-site"}), "forbidden")
    problem(follow(server, link, Origin="http://evil.example"), "forbidden")
    assert follow(server, link).status_code == 303


@pytest.mark.parametrize("path", [TRACK, SEND, "/api/activity", "/api/health", "/api/stream", "/openapi.json", "/docs"])
def test_a_preflight_is_never_granted(server: ServerProcess, path: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, code in (("http://evil.example", "forbidden"), (server.url, "method_not_allowed")):
        answer = raw(server, "OPTIONS", path, headers=asked | {"Origin": origin})
        problem(answer, code)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_answer_carries_a_cors_header(server: ServerProcess, admitted: str) -> None:
    origins: tuple[dict[str, str], ...] = (
        {},
        {"Origin": server.url},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    )
    addresses = ("/api/health", "/api/activity", "/api/nothing", "/openapi.json", "/docs", "/launch/x", *SCREENS)
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        for origin in origins:
            for path in addresses:
                answer = raw(server, method, path, headers=origin | {"Cookie": admitted})
                assert not [name for name in answer.headers if name.startswith("access-control-")], path


# --- the screens


@pytest.mark.parametrize("path", SCREENS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_the_screens_are_not_shown_without_the_cookie_not_even_for_a_key(
    server: ServerProcess, path: str, method: str
) -> None:
    answer = raw(server, method, path)
    assert answer.status == 401
    assert method == "HEAD" or problem(answer, "unauthorized")
    assert "set-cookie" not in answer.headers


def test_a_person_without_the_cookie_reads_how_to_get_in(server: ServerProcess) -> None:
    for path in ("/", "/launch/used"):
        answer = raw(server, "GET", path, headers=PAGE)
        assert (answer.status, answer.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "flashflow link" in answer.text
        assert "<script" not in answer.text


def test_a_launch_link_lets_one_browser_in_once(server: ServerProcess) -> None:
    link = new_link(server)
    answer = follow(server, link)
    assert (answer.status_code, answer.headers["location"], answer.content) == (303, "/", b"")
    jar: SimpleCookie = SimpleCookie(answer.headers["set-cookie"])
    (morsel,) = jar.values()
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Strict", "/")
    assert not morsel["domain"]
    page = raw(server, "GET", "/", headers=PAGE | {"Cookie": cookie(answer)})
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    for again in (follow(server, link), follow(server, link, Cookie=cookie(answer))):
        problem(again, "unauthorized")
        assert "set-cookie" not in again.headers
    assert raw(server, "GET", "/", headers={"Cookie": cookie(answer)}).status == 200


def test_only_following_a_link_uses_it_up(server: ServerProcess) -> None:
    link = new_link(server)
    for method in ("HEAD", "POST", "PUT", "OPTIONS"):
        assert follow(server, link, method).status_code == 401
    assert follow(server, link).status_code == 303


def test_the_link_that_is_printed_and_that_of_the_command_line_work(server: ServerProcess) -> None:
    printed = flashflow("link", data_dir=server.data_dir)
    assert printed.returncode == 0, printed.stderr
    assert follow(server, server.launch_link).status_code == 303
    assert follow(server, printed.stdout.split()[-1]).status_code == 303


def test_of_many_links_the_sixteen_newest_work(server: ServerProcess) -> None:
    links = [new_link(server) for _ in range(17)]
    assert [follow(server, link).status_code for link in links] == [401] + [303] * 16


def test_a_cookie_that_was_not_given_is_refused(server: ServerProcess, admitted: str) -> None:
    name, _, value = admitted.partition("=")
    until, nonce, signature = value.split(".")
    forged = [
        "", "x", ".", "..", f"{until}.{nonce}", f"{until}.{nonce}.", f"{until}.{nonce}.{signature[:-1]}",
        f"{until}.{nonce}.{signature}0", f"{int(until) + 1}.{nonce}.{signature}", f"0.{nonce}.{signature}",
        f"{until}.x{nonce}.{signature}", f"{until}.{nonce}.{'0' * 64}", f"{until}.{nonce}.{signature.upper()}",
        "é.é.é", "%s" % ("9" * 5000), value[::-1], server.key,
    ]  # fmt: skip
    for path in ("/", "/ws"):
        for cookie_ in forged:
            answer = raw(server, "GET", path, headers={"Cookie": f"{name}={cookie_}"})
            problem(answer, "unauthorized")
    for other in ("flashflow", "flashflow_1", name.upper(), f"x{name}"):
        problem(raw(server, "GET", "/", headers={"Cookie": f"{other}={value}"}), "unauthorized")
    assert raw(server, "GET", "/", headers={"Cookie": f"a=b; {name}={value}; c=d"}).status == 200


def test_a_cookie_of_another_folders_server_is_refused(
    server: ServerProcess, admitted: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with serving(tmp_path_factory.mktemp("other"), ui=True) as other:
        stolen = admitted.replace(f"flashflow_{server.port}", f"flashflow_{other.port}")
        problem(raw(other, "GET", "/", headers={"Cookie": stolen}), "unauthorized")


def test_the_cookie_opens_the_screens_and_not_the_api(server: ServerProcess, admitted: str) -> None:
    for method, path in (("GET", "/api/activity"), ("POST", TRACK), ("GET", "/api/keys"), ("POST", "/api/launch")):
        answer = raw(server, method, path, headers={"Authorization": "", "Cookie": admitted} | JSON)
        problem(answer, "unauthorized")


def test_the_screens_may_load_from_here_alone_and_be_framed_nowhere(server: ServerProcess, admitted: str) -> None:
    answer = raw(server, "GET", "/", headers={"Cookie": admitted})
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert (policy["default-src"], policy["frame-ancestors"], policy["object-src"]) == ("'self'", "'none'", "'none'")
    sources = {source for value in policy.values() for source in value.split()}
    elsewhere = {source for source in sources if re.search(r"[.:*]", source)}
    assert elsewhere <= {"data:", "blob:", f"ws://127.0.0.1:{server.port}", f"ws://localhost:{server.port}"}
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("path", SOCKETS)
def test_no_websocket_opens_without_the_cookie(server: ServerProcess, path: str) -> None:
    assert socket_status(server, path, server.url) == 403
    assert socket_status(server, path, server.url, Authorization=f"Bearer {server.key}") == 403


@pytest.mark.parametrize("origin", [None, *(origin for origin in ORIGINS if origin)])
def test_no_websocket_opens_for_a_page_of_another_origin(
    server: ServerProcess, admitted: str, origin: str | None
) -> None:
    named = origin and origin.format(port=server.port)
    assert socket_status(server, "/ws", named, Cookie=admitted) == 403


def test_the_websocket_of_the_screens_opens_with_the_cookie_and_no_other_does(
    server: ServerProcess, admitted: str
) -> None:
    assert socket_status(server, "/ws", server.url, Cookie=admitted) == 101
    assert socket_status(server, "/ws", server.url, Cookie=admitted, **{"Sec-Fetch-Site": "cross-site"}) == 403
    for path in ("/api/ws", "/api/stream", "/launch/ws"):
        assert socket_status(server, path, server.url, Cookie=admitted) == 403


def test_without_screens_there_is_nothing_to_let_a_browser_into(tmp_path: Any) -> None:
    with serving(tmp_path) as server:
        problem(server.api("POST", "/api/launch"), "not_found")
        for path in ("/", "/index.html", "/ws"):
            problem(raw(server, "GET", path), "not_found")
        problem(raw(server, "GET", "/launch/x"), "unauthorized")
        assert socket_status(server, "/ws", server.url) != 101


def test_a_refused_request_writes_nothing(server: ServerProcess) -> None:
    user = fresh()
    body = json.dumps({"user_id": user, "activity_type": "x"}).encode()
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        problem(raw(server, "POST", TRACK, body, JSON | headers), "forbidden")
    assert ok(server.api("GET", "/api/activity", params={"user_id": user}))["activities"] == []
