"""A push service on loopback (RFC 8030), which takes POSTs over TLS, keeps what it got and answers as it is told to;
and the browser behind it, which reads what arrived (RFC 8291), sharing no code with the sender."""

from __future__ import annotations

import base64
import hmac
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

NAME = "push.example.com"
"""A name that is on the certificate; only a test's own look-up knows it."""


@dataclass(frozen=True)
class Push:
    """One request as it arrived; headers by lower-case name."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What the service answers; with ``hang`` nothing, until the service stops."""

    status: int = 201
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False


class Certificate:
    """A self-signed certificate for loopback and NAME, with its key, as files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a push service on loopback")])
        hosts = [x509.DNSName(host) for host in ("localhost", NAME)]
        addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "127.0.0.2", "::1")]
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([*hosts, *addresses]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, SHA256())
        )
        self._pem = made.public_bytes(Encoding.PEM)
        self._file = folder / "push-service.pem"
        self._file.write_bytes(self._pem + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @cached_property
    def for_server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._file)
        return context

    def for_client(self) -> ssl.SSLContext:
        """Trusts this certificate and no other."""
        return ssl.create_default_context(cadata=self._pem.decode())


class PushService:
    """Listens on ``host``; ``replies`` are given one after the other, then 201 for ever."""

    def __init__(self, certificate: Certificate | None, host: str = "127.0.0.1", port: int = 0) -> None:
        self.received: list[Push] = []
        self.replies: list[Reply] = []
        self.connections = 0
        self.asked = threading.Event()
        self._stopping = threading.Event()
        self._server = _Server((host, port), self, certificate)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="push-service")
        self.scheme = "http" if certificate is None else "https"
        self.port: int = self._server.server_address[1]
        self.authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.origin = f"{self.scheme}://{self.authority}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply_to(self, push: Push) -> Reply | None:
        """Keep what came, and the answer to it; None for none at all."""
        self.received.append(push)
        reply = self.replies.pop(0) if self.replies else Reply()
        self.asked.set()
        if reply.hang:
            self._stopping.wait()
            return None
        return reply


@contextmanager
def push_service(certificate: Certificate | None, host: str = "127.0.0.1", port: int = 0) -> Iterator[PushService]:
    """A push service that runs; without a certificate it speaks plain http."""
    service = PushService(certificate, host, port)
    service.start()
    try:
        yield service
    finally:
        service.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], service: PushService, certificate: Certificate | None) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)
        self.service = service
        self._tls = None if certificate is None else certificate.for_server

    def get_request(self) -> tuple[Any, Any]:
        sock, address = super().get_request()
        self.service.connections += 1
        if self._tls is None:
            return sock, address
        # The handshake happens at the first read, in the connection's own thread: one that is silent holds up nobody.
        return self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, or does not like the certificate, is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.service.reply_to(Push(self.path, headers, body))
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.status != 204:
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


class Browser:
    """A browser's side of Web Push, by RFC 8291 and RFC 8188: keys of its own, a subscription, and reading."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None, auth: bytes = b"sixteen bytes ok") -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.auth = auth
        self.point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def subscription(self, endpoint: str, **changes: Any) -> str:
        """What ``JSON.stringify(subscription)`` gives a page."""
        keys = {"p256dh": b64(self.point), "auth": b64(self.auth)}
        return json.dumps({"endpoint": endpoint, "expirationTime": None, "keys": keys, **changes})

    def read(self, body: bytes) -> tuple[bytes, int]:
        """The content of one push and the length of its padded record."""
        salt, record_size, id_length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, record = body[21 : 21 + id_length], body[21 + id_length :]
        assert 18 <= len(record) <= record_size
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        extracted = hmac.digest(self.auth, self.key.exchange(ec.ECDH(), theirs), "sha256")
        secret = hmac.digest(extracted, b"WebPush: info\x00" + self.point + sender + b"\x01", "sha256")
        derived = hmac.digest(salt, secret, "sha256")
        key = hmac.digest(derived, b"Content-Encoding: aes128gcm\x00\x01", "sha256")[:16]
        nonce = hmac.digest(derived, b"Content-Encoding: nonce\x00\x01", "sha256")[:12]
        padded = AESGCM(key).decrypt(nonce, record, None)
        content = padded.rstrip(b"\x00")
        assert content[-1:] == b"\x02", "the delimiter of a last record"
        return content[:-1], len(padded)

    def message(self, body: bytes) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.read(body)[0])
        return decoded
