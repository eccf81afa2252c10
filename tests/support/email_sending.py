"""An e-mail channel to a server of the test's own, and what every test of it says again and again."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flashflow.backend.core.clock import Clock, SystemClock
from flashflow.backend.delivery.email.channel import EmailChannel
from flashflow.backend.delivery.email.timeouts import SLOW_S
from flashflow.backend.domain.delivery_messages import Outcome
from flashflow.backend.settings.model import EmailSettings
from tests.support.notices import notice
from tests.support.smtp_server import HOST

FLOW = "FlashFlow <flow@flash.example>"
TO_ADA = notice(target="ada@example.org", created_at=1_781_092_800_000)
ACCEPTED = ("sent", "accepted")
SHORT_S = 0.3
STEPS = ("connect", "greeting", "command", "data", "answer")
SOON_S = 10.0
LONG_S = 60.0


def settings(port: int, **changes: Any) -> EmailSettings:
    return EmailSettings(**{"host": HOST, "port": port, "sender": FLOW, "security": "none", **changes})


@contextmanager
def channel(
    port: int,
    *,
    clock: Clock | None = None,
    timeout_s: float = LONG_S,
    ssl_context: Any = None,
    idle_s: float = 30.0,
    slow_s: float = SLOW_S,
    resolve: Any = socket.getaddrinfo,
    **changes: Any,
) -> Iterator[EmailChannel]:
    """``changes`` are to the settings; ``timeout_s`` is for each step that they do not name."""
    made = EmailChannel(
        settings(port, **{f"{step}_timeout": timeout_s for step in STEPS} | changes),
        clock or SystemClock(),
        ssl_context=ssl_context,
        idle_s=idle_s,
        slow_s=slow_s,
        resolve=resolve,
    )
    try:
        yield made
    finally:
        made.close()


def said(outcome: Outcome) -> tuple[str, str]:
    return outcome.outcome, outcome.code


class Trust(NamedTuple):
    """A certificate that signed itself: the server's side, and the side of a client that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def self_signed(folder: Path, host: str = HOST) -> Trust:
    """A fresh one for ``host``, valid for a day, its files in ``folder``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail for a test")])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return Trust(server, client)
