"""API keys: per-app keys with scopes, stored as hashes, and the local key for apps of the same OS user.

A key has 256 random bits, so a plain SHA-256 suffices for storing it.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from flashflow.backend.core.clock import to_datetime
from flashflow.backend.core.errors import Conflict, NotFound, Unauthorized, ValidationError
from flashflow.backend.core.local_key import digest_of, id_of, local_key, new_key, proof_of
from flashflow.backend.schemas.records import SCOPES, ApiKey
from flashflow.backend.schemas.requests import KeyIn, build
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.notifications import api_keys

log = logging.getLogger(__name__)

LOCAL = "local"
REMEMBERED = 256
HOW = "Run `flashflow key` for the local key, or `flashflow keys add NAME --scope …` for an app's own."


class Caller(msgspec.Struct, frozen=True):
    """Authenticated app: name and scopes."""

    app: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether the key has ``scope``; admin includes every scope."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def sees(self) -> str | None:
        """App whose rows this caller may read; None: all apps."""
        return None if "admin" in self.scopes else self.app


class KeyRing:
    """Keys of one ``notifications.db``, and the local key in ``folder``; ``report`` is called if that is damaged."""

    def __init__(self, store: Store, folder: Path, report: Callable[[str], None] = log.warning) -> None:
        self._store = store
        self.local_key = local_key(folder, report)
        self._callers: dict[bytes, Caller] = {}
        self._good: dict[bytes, Caller] = {}
        self._digests: dict[str, bytes] = {}
        self._changing = threading.Lock()
        self._reload()

    def bearer(self, authorization: bytes) -> Caller:
        """Authenticate an Authorization header. Raises Unauthorized.

        Valid headers are cached until the keys change, so that repeated requests cost one look-up. Unknown headers go
        through ``caller``, which takes constant time.
        """
        # Read before the keys: if these change meanwhile, this cache is replaced, and the entry added below with it.
        good = self._good
        known = good.get(authorization)
        if known is not None:
            return known
        kind, _, key = authorization.partition(b" ")
        if kind.lower() != b"bearer" or not key:
            raise Unauthorized(f"Send `Authorization: Bearer KEY`. {HOW}")
        caller = self.caller(key.strip().decode("latin-1"))
        if len(good) < REMEMBERED:
            good[authorization] = caller
        return caller

    def caller(self, key: str) -> Caller:
        """Authenticate a key. Raises Unauthorized for an unknown or revoked one."""
        digest = digest_of(key)
        found = None
        for stored, caller in self._callers.items():
            # Compare all keys, each in constant time, so that the time reveals nothing.
            if hmac.compare_digest(stored, digest):
                found = caller
        if found is not None:
            return found
        raise Unauthorized(f"This key is unknown or revoked. {HOW}")

    def prove(self, key_id: str, nonce: bytes, address: str) -> str:
        """Prove knowledge of an active key, see ``proof_of``. Raises NotFound."""
        digest = self._digests.get(key_id)
        if digest is None:
            raise NotFound("There is no key with this id in use.")
        return proof_of(digest, nonce, address)

    def add(self, name: str, scopes: Sequence[str]) -> tuple[str, ApiKey]:
        """Create a key and return it with its public data. Raises Conflict when the name is in use."""
        request = build(KeyIn, name=name, scopes=list(scopes))
        if request.name == LOCAL:
            raise ValidationError.of("name", "“local” is the local key's own name")
        key = new_key()
        made = self._store.run(Write(self._insert, (request, digest_of(key))))
        self._reload()
        return key, made

    def list(self) -> tuple[ApiKey, ...]:
        """Return public data of all keys by name, without the local key."""
        return tuple(key for _, key in self.numbered())

    def numbered(self) -> Sequence[tuple[int, ApiKey]]:
        """Return ``list`` with sequence numbers, for paging."""
        return [(row.seq, _to_key(row)) for row in self._store.read(api_keys.list_keys)]

    def revoke(self, name: str) -> ApiKey:
        """Revoke a key permanently. Raises NotFound."""
        gone = self._store.run(Write(self._revoke, name))
        self._reload()
        return gone

    @each_item
    def _insert(self, tx: Tx, item: tuple[KeyIn, bytes]) -> ApiKey:
        request, digest = item
        scopes = tuple(scope for scope in SCOPES if scope in request.scopes)
        row = api_keys.insert_key(tx.conn, request.name, digest, scopes, tx.now_ms)
        if row is None:
            raise Conflict(f"There is a key “{request.name}” already; revoke it first.")
        return _to_key(row)

    @each_item
    def _revoke(self, tx: Tx, name: str) -> ApiKey:
        row = api_keys.revoke_key(tx.conn, name, tx.now_ms)
        if row is None:
            raise NotFound(f"There is no key “{name}” in use.")
        return _to_key(row)

    def _reload(self) -> None:
        # One at a time: rows read before a revocation must not replace those read after it.
        with self._changing:
            keys = self._store.read(api_keys.active_keys)
            callers = {key.hash: Caller(key.name, frozenset(key.scopes)) for key in keys}
            callers[digest_of(self.local_key)] = Caller(LOCAL, frozenset({"admin"}))
            self._callers = callers
            self._digests = {id_of(digest): digest for digest in callers}
            self._good = {}


def _to_key(row: api_keys.Row) -> ApiKey:
    return ApiKey(
        name=row.name,
        scopes=row.scopes,
        created_at=to_datetime(row.created_at),
        revoked_at=None if row.revoked_at is None else to_datetime(row.revoked_at),
    )
