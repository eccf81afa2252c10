"""Access tokens for a Google service account: exchange a signed assertion for a one-hour token (RFC 7523)."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from flashflow.backend.core.clock import Age, Clock
from flashflow.backend.delivery.net.http_client import Answer, HttpClient, provider_message
from flashflow.backend.domain.channel import ChannelError, Permanent, Transient

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_S = 3600
EARLY_S = 300.0
"""Seconds before expiry at which a token is replaced."""
MAX_CREDENTIALS = 64 * 1024


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The fields used of a service account's JSON."""

    project_id: str
    client_email: str
    private_key: str
    token_uri: str
    private_key_id: str | None = None

    def __repr__(self) -> str:
        return f"ServiceAccount(project_id={self.project_id!r})"  # the key stays out of logs


class Credentials:
    """A service account and its key, from a file or as JSON.

    They are read at first use, again until they are valid, and again when the file changes, since keys are renewed
    under the same name. A missing or incomplete file leaves the last valid pair in use.
    """

    def __init__(self, given: str) -> None:
        self._given = given.lstrip("\ufeff \t\r\n")
        self._is_file = self._given[:1] != "{"
        self._read: tuple[ServiceAccount, RSAPrivateKey] | None = None
        self._seen: tuple[int, int, int] | None = None

    def account(self) -> ServiceAccount:
        """Return the service account. Raises Permanent ``bad_credentials``; its text contains no credentials."""
        return self._pair()[0]

    def assertion(self, now_s: int) -> str:
        """Return the signed JWT to exchange for a token. Raises as ``account`` does."""
        import jwt

        account, key = self._pair()
        claims = {
            "iss": account.client_email,
            "scope": SCOPE,
            "aud": account.token_uri,
            "iat": now_s,
            "exp": now_s + ASSERTION_S,
        }
        headers = {"kid": account.private_key_id} if account.private_key_id else None
        return jwt.encode(claims, key, algorithm="RS256", headers=headers)

    def _pair(self) -> tuple[ServiceAccount, RSAPrivateKey]:
        seen = self._signature()
        if self._read is not None and seen in (None, self._seen):
            return self._read
        try:
            account = _account(self._file() if self._is_file else self._given.encode("utf-8", "replace"))
            self._read, self._seen = (account, _key(account.private_key)), seen
        except Permanent:
            if self._read is None:
                raise
        return self._read

    def _signature(self) -> tuple[int, int, int] | None:
        """Return a value that changes with the file; None if there is no file."""
        if not self._is_file:
            return None
        try:
            found = Path(self._given).expanduser().stat()
        except (OSError, ValueError, RuntimeError):
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _file(self) -> bytes:
        try:
            with Path(self._given).expanduser().open("rb") as file:
                return file.read(MAX_CREDENTIALS)
        except (OSError, ValueError, RuntimeError) as error:  # the supposed path may itself be a secret
            why = getattr(error, "strerror", None) or "not a path"
            raise _bad(f"the file cannot be read: {why}") from None


class AccessTokens:
    """Access token shared by all threads; concurrent callers share one request for a new one."""

    def __init__(self, credentials: Credentials, clock: Clock, client: HttpClient) -> None:
        self._credentials = credentials
        self._clock = clock
        self._client = client
        self._lock = threading.Lock()
        self._token: str | None = None
        self._good_for_s = 0.0
        self._age = Age(clock)
        self._request: Future[str] | None = None

    def token(self, refused: str | None = None) -> str:
        """Return a token that is not about to expire and not the ``refused`` one.

        Raises Permanent ``bad_credentials`` or ``credentials_refused``; Transient or Throttled for other failures.
        """
        with self._lock:
            if self._token is not None and self._token != refused and self._age.is_below(self._good_for_s):
                return self._token
            request, is_first = self._request, self._request is None
            if request is None:
                request = self._request = Future()
        if is_first:
            self._renew(request)
        return request.result()

    def _renew(self, request: Future[str]) -> None:
        try:
            token, lasts_s = self._fetch()
        except BaseException as error:  # noqa: BLE001 raised again in every thread that waits
            with self._lock:
                self._token = self._request = None
            request.set_exception(error)
            return
        with self._lock:
            self._token, self._request = token, None
            self._good_for_s = max(lasts_s - EARLY_S, lasts_s / 2)
            self._age = Age(self._clock)
        request.set_result(token)

    def _fetch(self) -> tuple[str, float]:
        assertion = self._credentials.assertion(self._clock.now_ms() // 1000)
        form = urlencode({"grant_type": GRANT, "assertion": assertion}).encode("ascii")
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        answer = self._client.post(self._credentials.account().token_uri, headers=headers, content=form)
        reply = answer.json_object()
        if answer.status != 200:
            raise self._refused(answer, reply, assertion)
        token, lasts = reply.get("access_token"), reply.get("expires_in")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token.strip():
            raise Transient("token_bad_answer", "Google's token service answered without a token.")
        if not isinstance(lasts, int | float) or isinstance(lasts, bool) or lasts <= 0:
            lasts = ASSERTION_S
        return token.strip(), float(min(lasts, ASSERTION_S))

    def _refused(self, answer: Answer, reply: dict[str, object], assertion: str) -> ChannelError:
        words = provider_message(reply.get("error_description"), assertion) or provider_message(
            reply.get("error"), assertion
        )
        text = provider_message(f"Google's token service answered {answer.status}{': ' if words else '.'}{words}")
        if answer.status in (400, 401, 403):
            return Permanent("credentials_refused", text)
        return answer.refusal(self._clock, f"token_http_{answer.status}", text)


def _account(content: bytes) -> ServiceAccount:
    try:
        return msgspec.json.decode(content, type=ServiceAccount)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise _bad("they are not the JSON of a service account with project_id, private_key and token_uri") from None


def _key(pem: str) -> RSAPrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode("ascii"), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _bad("the private key in them cannot be read") from None
    if not isinstance(key, RSAPrivateKey):
        raise _bad("the private key in them is not an RSA key")
    return key


def _bad(why: str) -> Permanent:
    return Permanent("bad_credentials", f"The FCM credentials cannot be used: {why}.")
