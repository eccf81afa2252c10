"""Connection to the running server: find it by the data folder and let it prove its identity before sending the key."""

from __future__ import annotations

import hmac
import http.client
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from flashflow.backend.core.config import Config
from flashflow.backend.core.errors import FlashFlowError, NotFound, StorageError
from flashflow.backend.core.instance_file import read_instance
from flashflow.backend.core.local_key import digest_of, id_of, local_key, proof_of
from flashflow.backend.store.engine.folder_lock import is_locked

ASK_S = 15.0
PROOF_BYTES = 64 * 1024
"""Limit of bytes read of a response to a challenge, which comes from a program not identified yet."""


class NotProven(FlashFlowError):
    """The program at the server's address is not this folder's server; the key was not sent."""


class Server:
    """The server that runs on a data folder; requests carry the folder's local key."""

    def __init__(self, config: Config, url: str) -> None:
        self.url = url
        self._config = config

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | bytes | None = None, timeout: float = ASK_S
    ) -> dict[str, Any]:
        """Send a request; bytes in ``body`` are JSON. Raises FlashFlowError with the server's message, NotFound for
        status 404."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = self.key_header | ({} if body is None else {"Content-Type": "application/json"})
        with self.proven(timeout) as connection, self.answering():
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
        if not isinstance(answer, dict):
            raise StorageError(f"FlashFlow at {self.url} did not answer with a JSON object.")
        if response.status >= 400:
            kind = NotFound if response.status == 404 else FlashFlowError
            raise kind(str(answer.get("detail") or answer.get("title") or response.status))
        return answer

    @property
    def key_header(self) -> dict[str, str]:
        """The header with the local key, for proven connections only."""
        return {"Authorization": f"Bearer {local_key(self._config.data_dir)}"}

    @contextmanager
    def proven(self, timeout: float = ASK_S) -> Iterator[http.client.HTTPConnection]:
        """Connect, and let the server prove that it knows the local key. Raises NotProven, and StorageError where no
        server responds."""
        with self.answering():
            connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=min(timeout, ASK_S))
        try:
            with self.answering():
                connection.connect()
                connection.auto_open = 0  # the key must not be sent on a second, unproven connection
                _prove(connection, self._config)
                connection.sock.settimeout(timeout)
            yield connection
        finally:
            connection.close()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Convert connection errors within this block to StorageError."""
        try:
            yield
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StorageError(f"FlashFlow at {self.url} did not answer: {error or type(error).__name__}") from error


def running(config: Config) -> Server | None:
    """Return the server that runs on this data folder; None without one. Raises NotProven."""
    instance = read_instance(config.data_dir)
    # A killed server leaves its file behind, and its port may be used by another program.
    if instance is None or not _is_alive(instance.pid) or not is_locked(config.data_dir):
        return None
    server = Server(config, instance.url)
    try:
        with server.proven():
            return server
    except StorageError:
        return None


def _prove(connection: http.client.HTTPConnection, config: Config) -> None:
    """Challenge the server (``POST /api/proof``). Raises NotProven."""
    digest, nonce = digest_of(local_key(config.data_dir)), secrets.token_bytes(32)
    challenge = json.dumps({"key_id": id_of(digest), "nonce": nonce.hex()})
    connection.request("POST", "/api/proof", challenge, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read(PROOF_BYTES)
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    address = f"{host}:{connection.port}"
    try:
        proof = str(json.loads(content)["proof"])
    except (ValueError, LookupError, TypeError, RecursionError):
        proof = ""
    if not hmac.compare_digest(proof.encode("utf-8", "replace"), proof_of(digest, nonce, address.lower()).encode()):
        raise NotProven(
            f"The program at http://{address} did not prove that it is the FlashFlow of {config.data_dir} "
            f"(HTTP {response.status}); the key was not sent. Restart it if it is older or its key changed."
        )


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # signal 0 is Ctrl-C there; the folder's lock suffices
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid > 0
