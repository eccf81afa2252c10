"""Storage of secrets outside ``flashflow.toml``: the operating system's keyring, where one works."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from flashflow.backend.core.deadline import DeadlineCalls, Reason

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

log = logging.getLogger(__name__)

_SERVICE = "FlashFlow"
_TO_PROBE = "probe"
"""Name without a secret, read to test whether the keyring responds."""
_NO_KEYRING = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Modules of backends that store nothing, store plain text, or prompt for a password on the terminal."""
_RECOMMENDED = 1
"""Lowest priority of a backend that the keyring library would choose."""


class SecretsUnavailable(Exception):
    """No keyring works at present; the message gives the reason to the user."""


class SecretStore:
    """The operating system's keyring through the ``keyring`` library. For one thread at a time.

    ``missing`` is the reason why this device has none; secrets are then written to the file. Otherwise the first call
    probes the keyring. Each call runs in a thread and has ``timeout_s``, since a locked keyring waits for the user.
    After a timeout, calls raise at once until that thread has ended. Every call may raise SecretsUnavailable.
    """

    def __init__(self, missing: str | None = None, *, timeout_s: float = 2.0) -> None:
        self._missing = missing
        self._timeout_s = timeout_s
        self._calls = DeadlineCalls(timeout_s, "keyring", self._no_answer)
        self._backend: KeyringBackend | None = None

    def get(self, name: str) -> str | None:
        """Return the secret, or None for an unknown name."""
        backend = self._opened()
        return self._call(lambda: backend.get_password(_SERVICE, name))

    def set(self, name: str, value: str) -> None:
        """Store ``value``; after this returns, ``get`` returns it."""
        backend = self._opened()
        self._call(lambda: backend.set_password(_SERVICE, name, value))
        if self.get(name) != value:
            raise SecretsUnavailable("The keyring did not keep what it was given.")

    def delete(self, name: str) -> None:
        """Remove the secret; no error for an unknown name."""
        backend = self._opened()
        if self.get(name) is not None:
            self._call(lambda: backend.delete_password(_SERVICE, name))

    def _opened(self) -> KeyringBackend:
        if self._missing is not None:
            raise SecretsUnavailable(self._missing)
        if self._backend is None:
            self._backend = self._open()
        return self._backend

    def _open(self) -> KeyringBackend:
        """Probe the keyring. A missing one is remembered; a slow or locked one is not: it may be unlocked later."""
        try:
            import keyring  # outside the deadline: an import from a slow disk is no hang
        except ImportError:
            self._missing = "The package keyring is not installed."
            raise SecretsUnavailable(self._missing) from None
        backend = self._call(lambda: _usable(keyring.get_keyring()))
        if backend is None:
            self._missing = "This computer has no keyring that works."
            raise SecretsUnavailable(self._missing)
        self._call(lambda: backend.get_password(_SERVICE, _TO_PROBE))
        return backend

    def _call(self, work: Callable[[], T]) -> T:
        try:
            return self._calls.run(work)
        except SecretsUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 each backend raises its own errors
            # Without the error's text, which may quote the secret.
            raise SecretsUnavailable(f"The keyring refused ({type(error).__name__}).") from None

    def _no_answer(self, reason: Reason) -> SecretsUnavailable:
        if reason != "timeout":
            return SecretsUnavailable("The keyring has not answered yet: it may be waiting to be unlocked.")
        log.warning("the keyring did not answer within %g seconds; it may be locked", self._timeout_s)
        return SecretsUnavailable(f"The keyring did not answer within {self._timeout_s:g} seconds: it may be locked.")


class PendingSecrets:
    """Writes secrets to a store and can undo them, until the caller has written the settings file."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store
        self._before: dict[str, str | None] = {}

    def put(self, name: str, value: str) -> bool:
        """Store ``value``. Return whether the store accepted it."""
        try:
            before = self._store.get(name)
            self._store.set(name, value)
        except SecretsUnavailable as error:
            log.info("a secret is not kept in the keyring: %s", error)
            return False
        self._before[name] = before
        return True

    def undo(self) -> None:
        """Restore the previous values, as far as the store responds."""
        for name, value in self._before.items():
            try:
                if value is None:
                    self._store.delete(name)
                else:
                    self._store.set(name, value)
            except SecretsUnavailable as error:
                log.warning("a secret in the keyring could not be put back: %s", error)


def secret_store(environ: Mapping[str, str], *, platform: str | None = None) -> SecretStore:
    """Return this device's store: the keyring, unless it is a phone or FLASHFLOW_KEYRING is ``off``."""
    if environ.get("FLASHFLOW_KEYRING", "").strip().lower() == "off":
        return SecretStore("The keyring is switched off by FLASHFLOW_KEYRING.")
    # Python before 3.13 calls Android "linux".
    here = platform or ("android" if hasattr(sys, "getandroidapilevel") else sys.platform)
    if here in ("android", "ios"):
        return SecretStore("There is no keyring on this device.")
    return SecretStore()


def _usable(backend: object) -> KeyringBackend | None:
    """Return ``backend`` if it stores secrets encrypted and without a terminal. Of a chain the first one decides."""
    module = type(backend).__module__
    if module == "keyring.backends.chainer":
        chain = list(getattr(backend, "backends", ()))
        return backend if chain and _usable(chain[0]) is not None else None  # type: ignore[return-value]
    if module.startswith(_NO_KEYRING) or getattr(backend, "priority", 0) < _RECOMMENDED:
        return None
    return backend  # type: ignore[return-value]
