"""Servers on loopback that speak as providers do: Twilio, Google's token service with FCM, and APNs over HTTP/2.

Each checks what it is sent as the provider would (credentials, signatures, headers, sizes) and answers as it is told:
``answers`` are given one after another, then it is content again.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import h2.config
import h2.connection
import h2.events
import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from flashflow.backend.core.clock import Clock
from tests.support.fixed_clock import StillClock

DEADLINE = 15.0
"""Seconds that something which does happen may take."""


class Asked(NamedTuple):
    """A request as it came; header names in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The body's fields, of which none may come twice."""
        fields = parse_qs(self.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        assert all(len(values) == 1 for values in fields.values()), fields
        return {name: values[0] for name, values in fields.items()}


class Reply(NamedTuple):
    """An answer; a dict is sent as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = {}

    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


# --- certificates -----------------------------------------------------------------------------------------------------


class Certificate(NamedTuple):
    """A certificate that signed itself, and its key, as PEM."""

    pem: bytes
    key: bytes

    def server(self, *protocols: str) -> ssl.SSLContext:
        """A server's side of TLS, with these offered by ALPN."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.pem + self.key)
            file.flush()
            context.load_cert_chain(file.name)
        if protocols:
            context.set_alpn_protocols(protocols)
        return context

    def client(self) -> ssl.SSLContext:
        """A client's side that trusts this one alone, and checks the name."""
        context = ssl.create_default_context(cadata=self.pem.decode())
        assert context.check_hostname
        return context


@cache
def certificate(*names: str) -> Certificate:
    """One for these names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    return Certificate(signed.public_bytes(Encoding.PEM), private_pem(key))


def private_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


# --- any server -------------------------------------------------------------------------------------------------------


@contextmanager
def raw_server(
    serve: Callable[[socket.socket, threading.Event], None], tls: ssl.SSLContext | None = None
) -> Iterator[int]:
    """A port on 127.0.0.1 whose every connection is handed to ``serve``, in a thread; the event is set at the end."""
    ended, threads = threading.Event(), list[threading.Thread]()
    listening = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(DEADLINE)
            if tls is None:
                serve(connection, ended)
                return
            with tls.wrap_socket(connection, server_side=True) as secure:
                serve(secure, ended)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join(DEADLINE)
        listening.close()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


class Provider:
    """What every provider here has: what it was asked, what it is to answer, and a way to let a request hang."""

    def __init__(self) -> None:
        self.base_url = ""
        self.asked: list[Asked] = []
        self.answers: list[Reply] = []
        self.connections = 0
        self.arrived = threading.Event()
        """A request that is held has come."""
        self._gate = threading.Event()
        self._gate.set()
        self._lock = threading.Lock()

    def hold(self) -> None:
        """From now on every request hangs, until ``release``."""
        self.arrived.clear()
        self._gate.clear()

    def release(self) -> None:
        self._gate.set()

    def reply(self, asked: Asked) -> Reply:
        """Count, wait if told to, and answer."""
        with self._lock:
            self.asked.append(asked)
            told = self.answers.pop(0) if self.answers and self.answerable(asked) else None
        self.arrived.set()
        assert self._gate.wait(DEADLINE)
        return told or self.content(asked)

    def answerable(self, asked: Asked) -> bool:
        """Whether ``answers`` are for such a request."""
        return True

    def content(self, asked: Asked) -> Reply:
        """What a provider answers that nobody disturbs."""
        return Reply()


@contextmanager
def http_server(provider: Provider, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """``provider`` behind HTTP/1.1 with connections that are kept; the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = DEADLINE

        def setup(self) -> None:
            provider.connections += 1
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = provider.reply(Asked(self.path, headers, body))
            content = reply.content()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that hung up

        def finish_request(self, request: Any, client_address: Any) -> None:
            if tls is None:
                super().finish_request(request, client_address)
                return
            with tls.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        port = server.server_address[1]
        provider.base_url = provider.base_url or f"http{'' if tls is None else 's'}://{host}:{port}"
        try:
            yield port
        finally:
            provider.release()
            server.shutdown()
            thread.join(DEADLINE)


class TwoClocks(StillClock):
    """A wall clock that a test moves, and beside it seconds that grow only when it says so."""

    awake_s = 0.0

    def monotonic(self) -> float:
        return self.awake_s


# --- Twilio -----------------------------------------------------------------------------------------------------------


class Twilio(Provider):
    """The Messages resource of one account."""

    sid = "AC00000000000000000000000000000001"
    auth_token = "0123456789abcdef-the-token"
    message_sid = "SM00000000000000000000000000000007"

    def content(self, asked: Asked) -> Reply:
        expected = base64.b64encode(f"{self.sid}:{self.auth_token}".encode()).decode()
        if asked.headers.get("authorization") != f"Basic {expected}":
            return self.error(401, 20003, "Authentication Error - invalid username")
        if asked.path != f"/2010-04-01/Accounts/{self.sid}/Messages.json":
            return self.error(404, 20404, f"The requested resource {asked.path} was not found")
        form = asked.form
        if len(form["Body"].encode("utf-16-le")) > 2 * 1600:
            return self.error(400, 21617, "The concatenated message body exceeds the 1600 character limit")
        if not {"From", "MessagingServiceSid"} & form.keys():
            return self.error(400, 21603, "A 'From' phone number is required.")
        told = {"sid": self.message_sid, "status": "queued", "num_segments": "1", "to": form["To"], "error_code": None}
        return Reply(201, told)

    @staticmethod
    def error(status: int, code: int, message: str, **headers: str) -> Reply:
        """As Twilio says no; header names with underscores for hyphens."""
        more = f"https://www.twilio.com/docs/errors/{code}"
        told = {"code": code, "message": message, "more_info": more, "status": status}
        return Reply(status, told, {name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def twilio() -> Iterator[Twilio]:
    provider = Twilio()
    with http_server(provider):
        yield provider


# --- Google -----------------------------------------------------------------------------------------------------------


@cache
def rsa_key(name: str = "") -> rsa.RSAPrivateKey:
    """A key of its own for each name."""
    return rsa.generate_private_key(65537, 2048)


class Google(Provider):
    """The token service and FCM's v1 API of one project. ``answers`` are FCM's, ``token_answers`` the service's."""

    project = "flash-project"
    email = "push@flash-project.iam.example"
    key_id = "key-1"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.token_answers: list[Reply] = []
        self.lasts_s: object = 3599
        self.messages: list[dict[str, Any]] = []
        self._clock = clock
        self._good = ""

    def credentials(self, **changes: Any) -> str:
        """The service account's JSON, as Google's console gives it out."""
        account = {
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": self.key_id,
            "private_key": private_pem(rsa_key()).decode(),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": f"{self.base_url}/token",
            **changes,
        }
        return json.dumps({name: value for name, value in account.items() if value is not None})

    def token_requests(self) -> int:
        return sum(asked.path == "/token" for asked in self.asked)

    def revoke(self) -> None:
        """The token that is out there is good for nothing any more."""
        self._good = ""

    def answerable(self, asked: Asked) -> bool:
        return asked.path != "/token"

    def content(self, asked: Asked) -> Reply:
        if asked.path == "/token":
            with self._lock:
                told = self.token_answers.pop(0) if self.token_answers else None
            return told or self._token(asked)
        if not self._good or asked.headers.get("authorization") != f"Bearer {self._good}":
            return self.error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if asked.path != f"/v1/projects/{self.project}/messages:send":
            return self.error(404, "NOT_FOUND", "Requested entity was not found.")
        message = json.loads(asked.body)["message"]
        if not all(isinstance(value, str) for value in message.get("data", {}).values()):
            return self.error(400, "INVALID_ARGUMENT", "Invalid value at 'message.data[0].value' (TYPE_STRING)")
        self.messages.append(message)
        return Reply(200, {"name": f"projects/{self.project}/messages/0:{len(self.messages)}"})

    def _token(self, asked: Asked) -> Reply:
        form, now_s = asked.form, self._clock.now_ms() // 1000
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assertion = form["assertion"]
        keyless = {"verify_exp": False, "verify_iat": False, "verify_aud": False}  # by the test's clock, below
        try:
            told = jwt.decode(assertion, rsa_key().public_key(), algorithms=["RS256"], options=keyless)  # type: ignore[arg-type]
        except jwt.InvalidTokenError:
            return Reply(400, {"error": "invalid_grant", "error_description": f"Invalid JWT Signature: {assertion}"})
        assert jwt.get_unverified_header(assertion)["kid"] == self.key_id
        assert told["iss"] == self.email
        assert told["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        assert told["aud"] == f"{self.base_url}/token"
        assert now_s - 60 <= told["iat"] <= now_s
        assert now_s < told["exp"] <= told["iat"] + 3600
        self._good = f"ya29.secret-{uuid.uuid4()}"
        return Reply(200, {"access_token": self._good, "expires_in": self.lasts_s, "token_type": "Bearer"})

    @staticmethod
    def error(status: int, name: str, message: str, fcm: str | None = None, **headers: str) -> Reply:
        """As Google says no, with FCM's own code in the details if there is one."""
        details = [{"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": fcm}] if fcm else []
        told = {"error": {"code": status, "message": message, "status": name, "details": details}}
        return Reply(status, told, {header.replace("_", "-"): value for header, value in headers.items()})


@contextmanager
def google(clock: Clock) -> Iterator[Google]:
    provider = Google(clock)
    with http_server(provider):
        yield provider


# --- APNs -------------------------------------------------------------------------------------------------------------


@cache
def p256_key(name: str = "") -> ec.EllipticCurvePrivateKey:
    """A key of its own for each name."""
    return ec.generate_private_key(ec.SECP256R1())


class Apns(Provider):
    """api.push.apple.com for one team's app. Provider tokens are checked by ``clock``."""

    team_id, key_id, topic = "TEAM000001", "KEY0000001", "org.example.flash"

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.dead: dict[str, int] = {}
        """Device tokens that are gone, with the moment APNs learned it, in milliseconds since 1970."""
        self.pushes: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        """The provider tokens it saw, each once."""
        self.go_away = False
        """End the connection after the next answer."""
        self._clock = clock

    def reply(self, asked: Asked) -> Reply:
        token = asked.headers.get("authorization", "").partition(" ")[2]
        with self._lock:
            if token and token not in self.tokens:
                self.tokens.append(token)
        return super().reply(asked)

    def content(self, asked: Asked) -> Reply:
        refused = self._token_refused(asked.headers.get("authorization", ""))
        if refused:
            return Reply(403, {"reason": refused})
        wrong = self._wrong(asked)
        if wrong:
            return Reply(400, {"reason": wrong})
        if len(asked.body) > 4096:
            return Reply(413, {"reason": "PayloadTooLarge"})
        device = asked.path.removeprefix("/3/device/")
        if device in self.dead:
            return Reply(410, {"reason": "Unregistered", "timestamp": self.dead[device]})
        self.pushes.append(json.loads(asked.body))
        return Reply(200, b"", {"apns-id": asked.headers["apns-id"]})

    def _token_refused(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        if scheme != "bearer" or not token:
            return "MissingProviderToken"
        try:
            told = jwt.decode(token, p256_key().public_key(), algorithms=["ES256"], options={"verify_iat": False})
        except jwt.InvalidTokenError:
            return "InvalidProviderToken"
        if told.keys() != {"iss", "iat"} or told["iss"] != self.team_id:
            return "InvalidProviderToken"
        if jwt.get_unverified_header(token)["kid"] != self.key_id:
            return "InvalidProviderToken"
        age_s = self._clock.now_ms() // 1000 - told["iat"]
        return "" if 0 <= age_s <= 3600 else "ExpiredProviderToken"

    def _wrong(self, asked: Asked) -> str:
        headers = asked.headers
        checks = {
            "BadDeviceToken": re.fullmatch(r"/3/device/([0-9a-fA-F]{2})+", asked.path),
            "TopicDisallowed": headers.get("apns-topic") == self.topic,
            "InvalidPushType": headers.get("apns-push-type") == "alert",
            "BadPriority": headers.get("apns-priority") in ("1", "5", "10"),
            "BadExpirationDate": headers.get("apns-expiration", "0").isdigit(),
            "BadCollapseId": len(headers.get("apns-collapse-id", "").encode()) <= 64,
            "BadMessageId": re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", headers.get("apns-id", "")),
        }
        return next((reason for reason, right in checks.items() if not right), "")


@contextmanager
def h2_server(provider: Provider, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """``provider`` behind HTTP/2, over TLS where given; the port."""

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        if isinstance(connection, ssl.SSLSocket) and connection.selected_alpn_protocol() != "h2":
            return
        provider.connections += 1
        _H2Connection(provider, connection).run()

    with raw_server(serve, tls) as port:
        provider.base_url = f"http{'' if tls is None else 's'}://127.0.0.1:{port}"
        try:
            yield port
        finally:
            provider.release()


class _H2Connection:
    """One connection, one request at a time."""

    def __init__(self, provider: Provider, connection: socket.socket) -> None:
        self._provider = provider
        self._socket = connection
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._open: dict[int, tuple[dict[str, str], bytearray]] = {}

    def run(self) -> None:
        self._h2.initiate_connection()
        self._flush()
        while data := self._socket.recv(65_536):
            for event in self._h2.receive_data(data):
                self._take(event)
            self._flush()
            if getattr(self._provider, "go_away", False) and not self._open and self._provider.asked:
                self._provider.go_away = False  # type: ignore[attr-defined]
                self._h2.close_connection()
                self._flush()
                return

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream), headers=list(fields)):
                self._open[stream] = {str(name): str(value) for name, value in fields}, bytearray()
            case h2.events.DataReceived(stream_id=int(stream), data=bytes(data), flow_controlled_length=int(length)):
                self._open[stream][1].extend(data)
                self._h2.acknowledge_received_data(length, stream)
            case h2.events.StreamEnded(stream_id=int(stream)):
                headers, body = self._open.pop(stream)
                self._answer(stream, self._provider.reply(Asked(headers[":path"], headers, bytes(body))))

    def _answer(self, stream: int, reply: Reply) -> None:
        content = reply.content()
        headers = [(":status", str(reply.status)), *reply.headers.items()]
        self._h2.send_headers(stream, headers, end_stream=not content)
        while content:
            self._flush()
            room = min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size, len(content))
            if not room:
                for event in self._h2.receive_data(self._socket.recv(65_536)):
                    self._take(event)
                continue
            self._h2.send_data(stream, content[:room], end_stream=room == len(content))
            content = content[room:]

    def _flush(self) -> None:
        self._socket.sendall(self._h2.data_to_send())


@contextmanager
def apns(clock: Clock) -> Iterator[Apns]:
    provider = Apns(clock)
    with h2_server(provider, certificate("127.0.0.1").server("h2")):
        yield provider


def key_file(folder: Path, pem: bytes | None = None) -> Path:
    """A ``.p8`` file as Apple gives it out."""
    path = folder / "AuthKey.p8"
    path.write_bytes(private_pem(p256_key()) if pem is None else pem)
    return path
