"""Where the owner's secrets are kept outside ``flashflow.toml``: the operating system's keyring, where one works."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from flashflow.backend.core.deadline import DeadlineCalls, Reason

T = TypeVar("T")

log = logging.getLogger(__name__)

_TO_PROBE = "probe"
"""A name that is never kept: asking for it shows whether the keyring answers."""
_NO_KEYRING = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Modules of backends that keep nothing, keep it in the open, or ask for a password on the terminal."""
_RECOMMENDED = 1
"""The priority from which on the keyring library itself would choose a backend."""


class SecretsUnavailable(Exception):
    """No keyring works here and now; the message says why, for people."""


class SecretStore(Protocol):
    """Keeps secrets by name. Every call may raise SecretsUnavailable."""

    def get(self, name: str) -> str | None:
        """The secret, or None where there is none of that name."""
        ...

    def set(self, name: str, value: str) -> None:
        """Keep ``value``; once this returns, ``get`` gives it back."""
        ...

    def delete(self, name: str) -> None:
        """Forget it; no error where there is none."""
        ...


class NoSecrets:
    """Where no keyring is, on purpose or for want of one: secrets then stand in the file."""

    def __init__(self, reason: str = "There is no keyring on this device.") -> None:
        self._reason = reason

    def get(self, name: str) -> str | None:
        raise SecretsUnavailable(self._reason)

    def set(self, name: str, value: str) -> None:
        raise SecretsUnavailable(self._reason)

    def delete(self, name: str) -> None:
        raise SecretsUnavailable(self._reason)


class KeyringSecrets:
    """The operating system's keyring through the ``keyring`` library. Thread-safe.

    Nothing is asked before the first call, which probes once whether the keyring works. Each call has ``patience_s``
    and a thread of its own, since a locked keyring waits for a person: past it the call raises, and so does every
    other at once until that thread is back.
    """

    def __init__(self, service: str = "FlashFlow", *, patience_s: float = 2.0) -> None:
        self._service = service
        self._patience_s = patience_s
        self._calls = DeadlineCalls(patience_s, "keyring", self._no_answer)
        self._turn = threading.Lock()
        self._opening = threading.Lock()
        self._backend: Keyring | None = None
        self._missing: str | None = None

    def get(self, name: str) -> str | None:
        backend = self._opened()
        return self._ask(lambda: backend.get_password(self._service, name))

    def set(self, name: str, value: str) -> None:
        backend = self._opened()
        self._ask(lambda: backend.set_password(self._service, name, value))
        if self.get(name) != value:
            raise SecretsUnavailable("The keyring did not keep what it was given.")

    def delete(self, name: str) -> None:
        backend = self._opened()
        if self._ask(lambda: backend.get_password(self._service, name)) is not None:
            self._ask(lambda: backend.delete_password(self._service, name))

    def _opened(self) -> Keyring:
        with self._opening:
            if self._missing is not None:
                raise SecretsUnavailable(self._missing)
            if self._backend is None:
                self._backend = self._open()
            return self._backend

    def _open(self) -> Keyring:
        """The probe. That there is none is remembered; that it was slow or locked is not: it may be unlocked later."""
        try:
            import keyring  # outside the deadline: reading it from a slow disk is not hanging
        except ImportError:
            self._missing = "The package keyring is not installed."
            raise SecretsUnavailable(self._missing) from None
        backend = self._ask(lambda: _usable(keyring.get_keyring()))
        if backend is None:
            self._missing = "This computer has no keyring that works."
            raise SecretsUnavailable(self._missing)
        self._ask(lambda: backend.get_password(self._service, _TO_PROBE))
        return backend

    def _ask(self, work: Callable[[], T]) -> T:
        try:
            with self._turn:
                return self._calls.run(work)
        except SecretsUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 each backend has errors of its own
            # Their text stays out: it may quote what the backend was given.
            raise SecretsUnavailable(f"The keyring refused ({type(error).__name__}).") from None

    def _no_answer(self, reason: Reason) -> SecretsUnavailable:
        if reason != "timeout":
            return SecretsUnavailable("The keyring has not answered yet: it may be waiting to be unlocked.")
        log.warning("the keyring did not answer within %g seconds; it may be locked", self._patience_s)
        return SecretsUnavailable(f"The keyring did not answer within {self._patience_s:g} seconds: it may be locked.")


class Keyring(Protocol):
    """What is asked of the library's backends."""

    def get_password(self, service: str, username: str) -> str | None: ...
    def set_password(self, service: str, username: str, password: str) -> None: ...
    def delete_password(self, service: str, username: str) -> None: ...


class Keeping:
    """Secrets that are being put into a store, until it is certain that they are to stay there."""

    def __init__(self, store: SecretStore) -> None:
        self._store = store
        self._before: dict[str, str | None] = {}

    def put(self, name: str, value: str) -> bool:
        """Whether the store keeps it now."""
        try:
            before = self._store.get(name)
            self._store.set(name, value)
        except SecretsUnavailable as error:
            log.info("a secret is not kept in the keyring: %s", error)
            return False
        self._before[name] = before
        return True

    def undo(self) -> None:
        """What was there before is there again, as far as the store answers."""
        for name, value in self._before.items():
            try:
                if value is None:
                    self._store.delete(name)
                else:
                    self._store.set(name, value)
            except SecretsUnavailable as error:
                log.warning("a secret in the keyring could not be put back: %s", error)


def secret_store(environ: Mapping[str, str], *, platform: str | None = None) -> SecretStore:
    """What this device has: its keyring, unless it is a phone or FLASHFLOW_KEYRING is ``off``."""
    if environ.get("FLASHFLOW_KEYRING", "").strip().lower() == "off":
        return NoSecrets("The keyring is switched off by FLASHFLOW_KEYRING.")
    # Python before 3.13 calls Android "linux".
    here = platform or ("android" if hasattr(sys, "getandroidapilevel") else sys.platform)
    if here in ("android", "ios"):
        return NoSecrets()
    return KeyringSecrets()


def _usable(backend: object) -> Keyring | None:
    """``backend`` if it keeps secrets, encrypted and without a terminal; of a chain the first decides, as in it."""
    module = type(backend).__module__
    if module == "keyring.backends.chainer":
        chain = list(getattr(backend, "backends", ()))
        return backend if chain and _usable(chain[0]) is not None else None  # type: ignore[return-value]
    if module.startswith(_NO_KEYRING) or getattr(backend, "priority", 0) < _RECOMMENDED:
        return None
    return backend  # type: ignore[return-value]
