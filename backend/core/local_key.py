"""The local key in the data folder, the hash of a key, and the proof that a server knows it."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from flashflow.backend.core.errors import StorageError
from flashflow.backend.core.private_files import read_or_create

log = logging.getLogger(__name__)

PREFIX = "ff_"
KEY_FILE = "local.key"
_KEY = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{37,}}")
PROOF_LABEL = b"flashflow-proof-1"
"""Separates a proof's HMAC from other uses of a stored hash."""


def new_key() -> str:
    """Return a random key."""
    return PREFIX + secrets.token_urlsafe(32)


def local_key(folder: Path, report: Callable[[str], None] = log.warning) -> str:
    """Return the key in ``folder``'s file, created where it is missing or damaged. Raises StorageError."""
    path = folder / KEY_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be used: {error}") from error
    return read_or_create(path, _parse_key, _new_file, report)


def _new_file() -> bytes:
    return f"{new_key()}\n".encode()


def _parse_key(content: bytes) -> str | None:
    key = content.decode("ascii", "replace").strip()
    return key if _KEY.fullmatch(key) else None


def id_of(digest: bytes) -> str:
    """Return the public id of a stored hash: the first 16 hexadecimal digits of SHA-256("id" + hash)."""
    return hashlib.sha256(b"id" + digest).hexdigest()[:16]


def proof_of(digest: bytes, nonce: bytes, address: str) -> str:
    """Return the hexadecimal HMAC-SHA256, keyed with a stored hash, of PROOF_LABEL, nonce and address.

    The address (``127.0.0.1:8750``) invalidates a proof relayed from another port.
    """
    return hmac.digest(digest, PROOF_LABEL + nonce + address.encode(), "sha256").hex()


def digest_of(key: str) -> bytes:
    """Return the hash under which a key is stored."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
