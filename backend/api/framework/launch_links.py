"""One-time launch links, and the signed cookies of the browsers that followed one."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import deque
from pathlib import Path

from flashflow.backend.core.clock import Clock
from flashflow.backend.core.errors import StorageFull, Unauthorized
from flashflow.backend.core.private_files import read_or_create

log = logging.getLogger(__name__)

COOKIE_DAYS = 30
PENDING_LINKS = 16
LINK_S = 600
SECRET_FILE = "browser.secret"  # noqa: S105 a file's name
SECRET_BYTES = 32
LINK_PATH = "/launch/"
_LINK_TOKEN = re.compile(r"[0-9a-f]{8}\.[A-Za-z0-9_-]{43}")
_EXPIRED = f"This link has expired. A link works for {LINK_S // 60} minutes."


class LaunchLinks:
    """One-time launch links, and browser cookies signed with a secret stored in the data folder."""

    def __init__(self, folder: Path, port: int, clock: Clock) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._link_prefix = secrets.token_hex(4)
        """Prefix of this start's links: distinguishes links of an earlier start from forged ones."""
        self._links: dict[bytes, tuple[float, int]] = {}
        """Hash of each open link → its creation time on the monotonic clock (s) and the wall clock (ms)."""
        self._used: deque[bytes] = deque(maxlen=64)
        self._secret = _load_secret(folder / SECRET_FILE)
        self.cookie = f"flashflow_{port}"

    def new_link(self) -> str:
        """Return a path that admits one browser within LINK_S seconds. Only the PENDING_LINKS newest are valid."""
        token = f"{self._link_prefix}.{secrets.token_urlsafe(32)}"
        with self._lock:
            self._links[_hash(token)] = (self._clock.monotonic(), self._clock.now_ms())
            while len(self._links) > PENDING_LINKS:
                del self._links[next(iter(self._links))]
        return LINK_PATH + token

    def redeem(self, token: str) -> str:
        """Return the cookie for an open link and close the link. Raises Unauthorized with the reason."""
        digest = _hash(token)
        with self._lock:
            made = self._links.pop(digest, None)
            if made is None:
                raise Unauthorized(self._why_closed(token, digest))
            # The monotonic clock stops while a computer sleeps; the wall clock can be set back.
            age = max(self._clock.monotonic() - made[0], (self._clock.now_ms() - made[1]) / 1000)
            if age > LINK_S:
                raise Unauthorized(_EXPIRED)
            self._used.append(digest)
        body = f"{int(time.time()) + COOKIE_DAYS * 86_400}.{secrets.token_urlsafe(16)}"
        return f"{body}.{self._sign(body)}"

    def _why_closed(self, token: str, digest: bytes) -> str:
        if digest in self._used:
            return "This link was used before. Each link lets one browser in, once."
        if not _LINK_TOKEN.fullmatch(token):
            return "This link is not one of FlashFlow's."
        if token.startswith(self._link_prefix + "."):
            return _EXPIRED
        return "This link is from an earlier start of FlashFlow."

    def admits(self, cookie: str) -> bool:
        """Whether ``cookie`` has a valid signature and has not expired."""
        body, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign(body).encode(), signature.encode("utf-8", "replace")):
            return False
        return int(body.partition(".")[0]) > time.time()

    def _sign(self, body: str) -> str:
        return hmac.new(self._secret, body.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _load_secret(path: Path) -> bytes:
    new = secrets.token_bytes(SECRET_BYTES)
    try:
        return read_or_create(path, _parse_secret, lambda: new, log.warning)
    except StorageFull as error:
        log.warning("browsers need a new link after the next start: %s", error)
        return new


def _parse_secret(content: bytes) -> bytes | None:
    return content if len(content) == SECRET_BYTES else None
