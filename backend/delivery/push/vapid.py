"""VAPID identity for push services: one P-256 key pair, created at first use, and its signatures (RFC 8292).

A browser binds its subscription to the public key. Losing the private key would end every subscription, so the file is
written atomically, and a file that cannot be read is reported, never replaced.
"""

from __future__ import annotations

import base64
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flashflow.backend.core.private_files import sync_folder
from flashflow.backend.domain.channel import Permanent, Transient

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

LIFETIME_S = 12 * 3600
"""Half of the 24 hours that RFC 8292 allows, as a margin for a wrong clock."""
RENEWED_S = 3600
"""Remaining lifetime in seconds below which a signature is replaced."""
ORIGINS = 256
"""Most push services whose signatures are cached. Callers choose the services, so the number is bounded."""


class VapidKeys:
    """The key pair and its signatures. Thread-safe."""

    def __init__(self, private_key: EllipticCurvePrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        point = private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self._private_key = private_key
        self.public_key = base64.urlsafe_b64encode(point).rstrip(b"=").decode()
        """The ``applicationServerKey`` for browsers: the uncompressed point (65 bytes) as base64url."""
        self._lock = threading.Lock()
        self._signed: dict[tuple[str, str], tuple[float, str]] = {}

    @classmethod
    def load_or_create(cls, path: Path) -> VapidKeys:
        """Load the key pair from ``path`` (private key as PEM, mode 0600); create the file if there is none.

        Raises Transient ``vapid_key`` if the file cannot be read or written now, Permanent ``vapid_key`` if it exists
        and holds no P-256 key.
        """
        try:
            if not path.exists():
                _create(path)
            if os.name == "posix" and path.stat().st_mode & 0o077:
                path.chmod(0o600)
            pem = path.read_bytes()
        except OSError as error:
            raise Transient("vapid_key", f"The key file {path.name} cannot be used: {error.strerror}.") from None
        return cls(_private_key(pem, path.name))

    def authorization(self, endpoint_origin: str, subject: str, now_s: float) -> str:
        """Return the Authorization header for one push service: ``vapid t=…, k=…``.

        ``endpoint_origin``: scheme, host and any non-default port; ``subject``: mailto: or https: URL of the owner;
        ``now_s``: Unix time in seconds.
        """
        key = endpoint_origin, subject
        with self._lock:
            since, header = self._signed.get(key, (0.0, ""))
            # After the clock was set back, the cached one would exceed the lifetime that a service allows.
            if not header or not 0 <= now_s - since < LIFETIME_S - RENEWED_S:
                header = self._sign(endpoint_origin, subject, now_s)
                self._signed.pop(key, None)
                while len(self._signed) >= ORIGINS:
                    del self._signed[next(iter(self._signed))]
                self._signed[key] = now_s, header
        return header

    def _sign(self, origin: str, subject: str, now_s: float) -> str:
        import jwt

        claims = {"aud": origin, "exp": int(now_s) + LIFETIME_S, "sub": subject}
        return f"vapid t={jwt.encode(claims, self._private_key, algorithm='ES256')}, k={self.public_key}"


def _private_key(pem: bytes, name: str) -> EllipticCurvePrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with suppress(ValueError, TypeError, UnsupportedAlgorithm):
        key = load_pem_private_key(pem, None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
            return key
    text = f"{name} holds no P-256 private key. Restore the right one: without it no subscribed browser can be reached."
    raise Permanent("vapid_key", text)


def _create(path: Path) -> None:
    """Write a new key and move it to ``path`` atomically, unless another process created one first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, half = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_new_pem())
            file.flush()
            os.fsync(file.fileno())
        _name_it(half, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(half)
    sync_folder(path.parent)


def _name_it(half: str, path: Path) -> None:
    try:
        os.link(half, path)  # fails if the file exists, unlike a rename
    except FileExistsError:
        return
    except (OSError, AttributeError):
        # No hard links (a phone, a memory card). A rename could replace another's key, but a data folder is used by
        # one FlashFlow with one channel.
        os.replace(half, path)


def _new_pem() -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
