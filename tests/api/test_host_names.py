"""Accepted Host and Origin headers: behind a proxy, through a forwarded port, on port 80."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flashflow.backend.api.framework.host_names import HostNames
from flashflow.backend.core.errors import ValidationError
from tests.support.api_client import problem, raw
from tests.support.server_process import ServerProcess, flashflow, serving

ALLOWED = (
    "box.lan", "localhost:9000", "tls.example:443", "Plain.Example:80", "fd00:0::1", "[fd00::2]:9000",
    "münchen.example",
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = [word for name in ALLOWED for word in ("--allow-host", name)]
    with serving(tmp_path_factory.mktemp("hosts"), *options) as running:
        yield running


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}"),
        ("box.lan", "http://box.lan"),
        ("box.lan", "https://box.lan"),
        ("BOX.lan:80", "http://Box.lan"),
        ("box.lan:443", "https://box.lan"),
        ("box.lan:{port}", "http://box.lan:{port}"),
        ("127.0.0.1:{port}", "https://box.lan"),  # a proxy that puts in the address it forwards to
        ("localhost:9000", "http://localhost:9000"),
        ("localhost:9000", "https://localhost:9000"),
        ("tls.example", "https://tls.example"),
        ("tls.example:443", "https://tls.example"),
        ("plain.example", "http://plain.example"),
        ("[fd00::1]:{port}", "http://[fd00::1]:{port}"),
        ("[fd00::2]:9000", "http://[fd00::2]:9000"),
        ("xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
    ],
)
def test_an_allowed_name_is_answered_with_its_port_and_without_the_default_one(
    server: ServerProcess, host: str, origin: str
) -> None:
    headers = {"Host": host.format(port=server.port)}
    assert raw(server, "GET", "/api/health", headers=headers).status == 200
    headers["Origin"] = origin.format(port=server.port)
    assert raw(server, "GET", "/api/activity", headers=headers).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "box.lan:9000", "localhost", "localhost:9001", "127.0.0.1", "127.0.0.1:9000", "tls.example:80",
        "tls.example:{port}", "plain.example:443", "plain.example:{port}", "box.lan.evil.example", "evil.box.lan",
        "box.lan:", "box.lan:080", "fd00::1", "[fd00::2]", "[fd00::3]", "example",
    ],
)  # fmt: skip
def test_a_name_with_a_port_is_exact_and_no_other_name_is_accepted(server: ServerProcess, host: str) -> None:
    answer = raw(server, "GET", "/api/health", headers={"Host": host.format(port=server.port)})
    assert "--allow-host" in problem(answer, "forbidden")["detail"]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("box.lan", "http://evil.example"),
        ("box.lan", "https://box.lan:9000"),
        ("box.lan", "https://box.lan.evil.example"),
        ("box.lan", "ftp://box.lan"),
        ("box.lan", "null"),
        ("tls.example", "http://tls.example"),
        ("plain.example", "https://plain.example"),
        ("localhost:9000", "http://localhost"),
        ("127.0.0.1:{port}", "https://127.0.0.1:{port}"),
        ("127.0.0.1:{port}", "http://localhost:{port}"),
    ],
)
def test_an_origin_that_is_not_an_allowed_one_is_refused(server: ServerProcess, host: str, origin: str) -> None:
    headers = {"Host": host.format(port=server.port), "Origin": origin.format(port=server.port)}
    problem(raw(server, "GET", "/api/activity", headers=headers), "forbidden")


def test_without_allow_host_a_forwarded_port_is_refused() -> None:
    assert not HostNames("127.0.0.1", 8750).accepts(b"localhost:9000")


@pytest.mark.parametrize(
    ("listen", "own"),
    [
        ("127.0.0.1", b"127.0.0.1"),
        ("192.168.1.5", b"192.168.1.5"),
        ("0.0.0.0", b"localhost"),
        ("::1", b"[::1]"),
        ("::", b"[::1]"),
        ("0:0:0:0:0:0:0:1", b"[::1]"),
        ("Box.LAN", b"box.lan"),
    ],
)
def test_on_port_80_the_own_names_need_no_port(listen: str, own: bytes) -> None:
    hosts = HostNames(listen, 80)
    for name in (b"127.0.0.1", b"localhost", own):
        assert hosts.accepts(name)
        assert hosts.accepts(name + b":80")
        assert hosts.is_same_origin(b"http://" + name, name)
        assert not hosts.is_same_origin(b"https://" + name, name)
        assert not HostNames(listen, 8750).accepts(name)
    assert not hosts.accepts(b"0.0.0.0")
    assert not hosts.accepts(b"[::]")


@pytest.mark.parametrize(
    "name",
    [
        "", "*", "*.lan", "http://box.lan", "box.lan/", "box.lan:0", "box.lan:65536", "box.lan:x", "a b", "[box]",
        "[::1", "ü" * 70,
    ],
)  # fmt: skip
def test_an_allow_host_that_no_client_could_send_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValidationError, match="--allow-host"):
        HostNames("127.0.0.1", 8750, [name])


def test_the_command_line_names_the_wrong_allow_host(tmp_path: Path) -> None:
    done = flashflow("serve", "--no-ui", "--port", "0", "--allow-host", "http://box.lan", data_dir=tmp_path)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1), done.stderr
    assert "http://box.lan" in done.stderr
