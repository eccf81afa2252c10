"""A client can distinguish the server from another program on its port; the command line sends no key before that."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api_client import JSON, App, ok, problem, raw
from tests.support.server_process import ServerProcess, flashflow, serving

PROOF = "/api/proof"
COMMANDS = [
    ("track", "ada", "click"),
    ("send", "ada", "Title", "Message", "--channel", "in_app"),
    ("keys", "list"),
    ("keys", "add", "app", "--scope", "send"),
    ("verify",),
    ("export", "-"),
    ("import", "-"),
    ("prune", "--keep-days", "30"),
    ("erase", "ada", "--yes"),
    ("doctor",),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("proof")) as running:
        yield running


def challenge(key: str, nonce: bytes) -> dict[str, Any]:
    """Return the body of a challenge, by the documented formula."""
    digest = hashlib.sha256(key.encode()).digest()
    return {"key_id": hashlib.sha256(b"id" + digest).hexdigest()[:16], "nonce": nonce.hex()}


def proof(key: str, nonce: bytes, address: str) -> str:
    digest = hashlib.sha256(key.encode()).digest()
    return hmac.new(digest, b"flashflow-proof-1" + nonce + address.encode(), "sha256").hexdigest()


# --- the route


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_the_server_proves_every_key_in_use_to_a_client_that_shows_none(server: ServerProcess, name: str) -> None:
    app = App(server, "send")
    for key in (server.key, app.key):
        nonce = secrets.token_bytes(32)
        host = f"{name}:{server.port}"
        answer = httpx.post(server.url + PROOF, json=challenge(key, nonce), headers={"Host": host}, trust_env=False)
        assert ok(answer) == {"success": True, "proof": proof(key, nonce, host.lower())}


def test_there_is_no_proof_for_a_key_that_is_unknown_or_revoked(server: ServerProcess) -> None:
    app = App(server, "send")
    ok(server.api("DELETE", f"/api/keys/{app.name}"))
    for key in (app.key, "ff_other"):
        problem(httpx.post(server.url + PROOF, json=challenge(key, bytes(32)), trust_env=False), "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"key_id": "0" * 16}, "nonce"),
        ({"key_id": "0" * 16, "nonce": "0" * 63}, "nonce"),
        ({"key_id": "0" * 16, "nonce": "0" * 66}, "nonce"),
        ({"key_id": "0" * 16, "nonce": "x" * 64}, "nonce"),
        ({"key_id": "0" * 15, "nonce": "0" * 64}, "key_id"),
        ({"key_id": 7, "nonce": "0" * 64}, "key_id"),
    ],
)
def test_a_malformed_challenge_is_refused_and_its_field_named(
    server: ServerProcess, body: dict[str, Any], field: str
) -> None:
    problem(httpx.post(server.url + PROOF, json=body, trust_env=False), "validation_error", field)


def test_a_challenge_for_another_host_is_refused(server: ServerProcess) -> None:
    body = json.dumps(challenge(server.key, bytes(32))).encode()
    problem(raw(server, "POST", PROOF, body, JSON | {"Host": "127.0.0.1:1"}), "forbidden")


# --- another program on the port


class Squatter:
    """A program on the server's port that answers by ``kind`` and records the headers of every request."""

    def __init__(self, port: int, kind: str, real: str, key: str) -> None:
        self.seen: list[str] = []
        squatter = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                squatter.seen.append(f"{self.command} {self.path}\n{self.headers}")
                asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, body = 200, b'{"success": true, "status": "ok"}'
                if kind == "relay":
                    heard = httpx.request(self.command, real + self.path, content=asked, headers=JSON, trust_env=False)
                    status, body = heard.status_code, heard.content
                elif kind == "invented":
                    body = b'{"success": true, "proof": "%s"}' % (b"0" * 64)
                elif kind == "echo":
                    body = asked
                elif kind == "no JSON":
                    body = b"<html>" + b"x" * 200_000
                elif kind == "hangs up":
                    address = f"127.0.0.1:{squatter.port}"
                    body = json.dumps(
                        {"proof": proof(key, bytes.fromhex(json.loads(asked)["nonce"]), address)}
                    ).encode()
                    self.close_connection = True
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Keep the tests' output free of requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def squatting(port: int = 0, kind: str = "healthy", real: str = "", key: str = "") -> Iterator[Squatter]:
    squatter = Squatter(port, kind, real, key)
    try:
        yield squatter
    finally:
        squatter.close()
    assert not [seen for seen in squatter.seen if "authorization" in seen.lower() or "ff_" in seen]


@pytest.mark.parametrize("reused", [False, True], ids=["its pid is free", "its pid is another process"])
def test_after_kill_9_no_command_calls_the_program_that_took_the_port(tmp_path: Path, reused: bool) -> None:
    with serving(tmp_path) as server:
        server.kill()
        left = json.loads((tmp_path / "server.json").read_text())
        for command in COMMANDS[:2] if reused else COMMANDS:
            stale = left | ({"pid": os.getpid()} if reused else {})
            (tmp_path / "server.json").write_text(json.dumps(stale))
            with squatting(server.port) as squatter:
                done = flashflow(*command, data_dir=tmp_path)
            assert done.returncode == 0, (command, done.stderr)
            assert squatter.seen == [], command
            assert not (tmp_path / "server.json").exists(), "the next one to open the folder removes it"
        done = flashflow("link", data_dir=tmp_path)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize("kind", ["healthy", "relay", "invented", "echo", "no JSON", "hangs up"])
def test_a_program_that_cannot_prove_itself_is_shown_no_key(tmp_path: Path, kind: str) -> None:
    with serving(tmp_path) as server, squatting(0, kind, server.url, server.key) as squatter:
        planted = {"url": f"http://127.0.0.1:{squatter.port}", "pid": server.pid}
        (tmp_path / "server.json").write_text(json.dumps(planted))
        for command in (("track", "ada", "click"), ("export", "-")):
            done = flashflow(*command, data_dir=tmp_path)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
        assert squatter.seen
        if kind != "hangs up":
            assert "did not prove" in done.stderr
            looked = flashflow("doctor", data_dir=tmp_path)
            assert "no  server: The program at" in looked.stdout
            assert not looked.stderr
