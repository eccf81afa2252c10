"""A real SMTP server (aiosmtpd) on a loopback port, in a thread of its own, that can be told to misbehave.

    with smtp_server() as server:
        ...                                     # send to server.host, server.port
        server.mails                            # what it accepted so far: envelope, raw bytes, parsed message
        server.misbehave("RCPT", "550 5.1.1 No such user")
        server.misbehave("DATA", HANG, times=1)

``python -m tests.support.smtp_server --port 0`` runs one that only counts: it prints its port, answers NOOP with the
count, and ends on SIGTERM or SIGINT with the count as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HOST = "127.0.0.1"
PATIENCE = 10.0

HANG = "(hang)"
"""Nothing more is said; the connection stays open."""
DROP = "(drop)"
"""The connection is closed without a word. After BODY the mail was accepted all the same."""
TRICKLE = "(trickle)"
"""A reply without end, one byte every hundredth of a second."""

STEPS = ("GREETING", "EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BODY", "RSET", "NOOP", "QUIT")
"""Where it can misbehave; BODY is the mail's last dot, DATA the command before it."""


class Mail(NamedTuple):
    """One mail as the server took it."""

    greeting: str
    """What the client called itself."""
    sender: str
    recipients: tuple[str, ...]
    options: tuple[str, ...]
    """Those of MAIL, in capitals."""
    raw: bytes
    connection: int
    """Which connection it came over, the first being 1."""
    login: bytes | None
    encrypted: bool

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message


class SmtpServer:
    """What a test sees of it. Thread-safe."""

    def __init__(
        self, options: dict[str, Any], credentials: tuple[str, str] | None, tls: ssl.SSLContext | None
    ) -> None:
        self.host = HOST
        self.port = 0
        self.connections = 0
        """How many were opened so far."""
        self.open = 0
        """How many are open now."""
        self.steps = Counter[str]()
        """How often clients came to each step."""
        self._mails: list[Mail] = []
        self._faults: dict[str, tuple[str, int | None]] = {}
        self._lingering: dict[str, float] = {}
        self._changed = threading.Condition()
        self._options = options
        self._credentials = credentials
        self._tls = tls
        self._errors: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._sessions: set[_Session] = set()
        self._thread = threading.Thread(target=self._run, name="smtp-server", daemon=True)
        self._listening = threading.Event()

    @property
    def mails(self) -> list[Mail]:
        with self._changed:
            return list(self._mails)

    def forget_mails(self) -> None:
        """Begin ``mails`` again, for a test that shares the server with the test before."""
        with self._changed:
            self._mails.clear()

    def misbehave(self, step: str, how: str, times: int | None = None) -> None:
        """From now on (or so many ``times``) answer this step with ``how``: HANG, DROP, TRICKLE, or a reply."""
        assert step in STEPS
        with self._changed:
            self._faults[step] = (how, times)

    def linger(self, seconds: float, *steps: str) -> None:
        """From now on take so long before each of these steps is answered."""
        assert set(steps) <= set(STEPS)
        with self._changed:
            self._lingering = dict.fromkeys(steps, seconds)

    def behave(self) -> None:
        with self._changed:
            self._faults.clear()
            self._lingering.clear()

    def wait_until(self, condition: Callable[[], bool], what: str = "it") -> None:
        """Waits for something about this server's attributes to become true."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), f"{what} did not happen"

    def wait_for(self, step: str, times: int = 1) -> None:
        """Until clients have come to this step so many times."""
        self.wait_until(lambda: self.steps[step] >= times, step)

    def hang_up(self, last_words: str = "") -> None:
        """Close every connection, as a server does with idle ones."""
        self._in_loop(self._hang_up(last_words))
        self.wait_until(lambda: self.open == 0, "hanging up")

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(PATIENCE), "the SMTP server did not start"

    def stop(self) -> None:
        """Once or twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the SMTP server did not stop"
        assert self._errors == [], "the SMTP server itself failed"

    # --- for its sessions

    def change(self, **steps: int) -> None:
        """Add to the counters of that name and tell who waits."""
        with self._changed:
            for name, number in steps.items():
                setattr(self, name, getattr(self, name) + number)
            self._changed.notify_all()

    def lingers(self, step: str) -> float:
        """How many seconds it takes to answer this step."""
        with self._changed:
            return self._lingering.get(step, 0.0)

    def reached(self, step: str) -> str | None:
        """Counts it; how to misbehave there, if at all."""
        with self._changed:
            self.steps[step] += 1
            self._changed.notify_all()
            how, left = self._faults.get(step, (None, None))
            if left is not None:
                if left <= 1:
                    del self._faults[step]
                else:
                    self._faults[step] = (str(how), left - 1)
            return how

    def keep(self, mail: Mail) -> None:
        with self._changed:
            self._mails.append(mail)
            self._changed.notify_all()

    # --- the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(self._failed)
        server = self._loop.run_until_complete(self._loop.create_server(self._session, HOST, self.port, ssl=self._tls))
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for session in list(self._sessions):
            session.drop()
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for _ in range(5):  # the transports close in the turns of the loop after this one
            await asyncio.sleep(0)

    def _failed(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, ConnectionError | ssl.SSLError):  # clients may leave as they like
            self._errors.append(f"{context['message']}: {error!r}")

    def _session(self) -> SMTP:
        session = _Session(self, loop=self._loop, **self._options)
        self._sessions.add(session)
        return session

    def forget(self, session: _Session) -> None:
        self._sessions.discard(session)

    async def _hang_up(self, last_words: str) -> None:
        for session in list(self._sessions):
            if last_words:
                session._writer.write(last_words.encode() + b"\r\n")
            session.hang_up()

    def _in_loop(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    @property
    def wants_login(self) -> bool:
        return self._credentials is not None

    def authenticate(self, login: LoginPassword) -> bool:
        return self._credentials is not None and login == tuple(text.encode() for text in self._credentials)


class _Session(SMTP):
    """One connection's dialogue; every step asks the server first how to behave."""

    def __init__(self, server: SmtpServer, **options: Any) -> None:
        self.owner = server
        self.number = 0
        self._raw: Any = None
        super().__init__(
            _Handler(),
            hostname="mail.example.org",
            auth_require_tls=False,
            authenticator=self._authenticated,
            **options,
        )
        self._greeted = False
        for verb, method in list(self._smtp_methods.items()):
            if verb in STEPS:
                self._smtp_methods[verb] = self._watched(verb, method)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.number == 0:
            self._raw = transport
            self.owner.change(connections=1, open=1)
            self.number = self.owner.connections
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.owner._sessions:
            self.owner.forget(self)
            self.owner.change(open=-1)
        super().connection_lost(error)

    def drop(self) -> None:
        if self._raw is not None:  # whose TLS handshake failed was never connected
            self._raw.abort()

    def hang_up(self) -> None:
        if self._raw is not None:
            self._raw.close()

    async def push(self, status: Any) -> None:
        if not self._greeted:
            self._greeted = True
            if await self._misbehaved("GREETING"):
                return
        await super().push(status)

    async def take(self, envelope: Envelope) -> str:
        """The mail is here whole; what is answered to it."""
        how = self.owner.reached("BODY")
        await asyncio.sleep(self.owner.lingers("BODY"))
        assert self.session is not None
        assert self.transport is not None
        if how is None or how == DROP:
            self.owner.keep(
                Mail(
                    greeting=str(self.session.host_name),
                    sender=str(envelope.mail_from),
                    recipients=tuple(envelope.rcpt_tos),
                    options=tuple(envelope.mail_options),
                    raw=envelope.original_content or b"",
                    connection=self.number,
                    login=self.session.auth_data.login if self.session.auth_data else None,
                    encrypted=self.transport.get_extra_info("sslcontext") is not None,
                )
            )
        if how is not None and not how[0].isdigit():
            await self._carry_out(how)
        return how or "250 2.0.0 Ok: queued"

    def _watched(self, verb: str, method: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def step(arg: Any) -> None:
            if await self._misbehaved(verb):
                return
            if verb == "MAIL" and self.owner.wants_login and not (self.session and self.session.authenticated):
                await self.push("530 5.7.0 Authentication required")  # aiosmtpd's own warns where there is no TLS
            else:
                await method(arg)

        return step

    async def _misbehaved(self, step: str) -> bool:
        how = self.owner.reached(step)
        await asyncio.sleep(self.owner.lingers(step))
        if how is None:
            return False
        await self._carry_out(how)
        return True

    async def _carry_out(self, how: str) -> None:
        if how in {HANG, DROP}:
            try:
                if how == DROP:
                    self.drop()
                await asyncio.Event().wait()
            finally:  # the client has gone
                self.hang_up()
        elif how == TRICKLE:
            self._writer.write(b"250-")
            while True:
                self._writer.write(b"x")
                await asyncio.sleep(0.01)
        else:
            await super().push(how)

    def _authenticated(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, login: Any
    ) -> AuthResult:
        return AuthResult(success=self.owner.authenticate(login), handled=False, auth_data=login)


class _Handler:
    """Not the session itself, whose ``handle_exception`` aiosmtpd would then call without end."""

    async def handle_DATA(self, server: _Session, _session: Session, envelope: Envelope) -> str:
        return await server.take(envelope)


@contextmanager
def smtp_server(
    *,
    tls: ssl.SSLContext | None = None,
    starttls: ssl.SSLContext | None = None,
    credentials: tuple[str, str] | None = None,
    smtputf8: bool = True,
    without_auth: tuple[str, ...] = (),
    size_limit: int = 33_554_432,
    port: int = 0,
) -> Iterator[SmtpServer]:
    """Runs one while the block lasts. ``tls`` from the first byte or after STARTTLS; ``credentials`` are asked for."""
    options = {
        "tls_context": starttls,
        "auth_exclude_mechanism": without_auth,
        "enable_SMTPUTF8": smtputf8,
        "data_size_limit": size_limit,
    }
    server = SmtpServer(options, credentials, tls)
    server.port = port
    server.start()
    try:
        yield server
    finally:
        server.stop()


class _Counting:
    """The handler of a server that keeps nothing."""

    def __init__(self) -> None:
        self.mails = 0

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:
        self.mails += 1
        return "250 2.0.0 Ok: queued"

    async def handle_NOOP(self, _server: SMTP, _session: Session, _envelope: Envelope, _arg: str) -> str:
        return f"250 2.0.0 {self.mails} mails"


async def _count(host: str, port: int) -> int:
    import signal

    counting, stop, loop = _Counting(), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: SMTP(counting, hostname="mail.example.org", loop=loop), host, port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()
    return counting.mails


def main() -> None:
    parser = argparse.ArgumentParser(description="An SMTP server that only counts mails, on loopback.")
    parser.add_argument("--port", type=int, default=0)
    print(asyncio.run(_count(HOST, parser.parse_args().port)), flush=True)


if __name__ == "__main__":
    main()
