"""SSRF guard: refuse connections to private addresses unless the owner lists the host.

A name is resolved once, all its addresses are checked, and one of them is returned to connect to. DNS rebinding thus
has no effect: the name is not resolved again for the connection.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from flashflow.backend.core.deadline import run_in_thread
from flashflow.backend.delivery.net.text import bare_host
from flashflow.backend.domain.channel import Permanent, Transient

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Lookup = Callable[[str, int], Sequence[str]]
"""Resolve a name and a port to addresses as text. Raises OSError if there are none."""

LOOKUPS = 32
"""Most concurrent look-ups. More are only reached by names whose name servers never answer."""

# IANA's IPv4 and IPv6 special-purpose address registries (RFC 6890), without the globally reachable blocks. Written
# out because ``ipaddress.is_global`` changed between Python 3.11.9 and 3.11.10.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",  # "this network": 0.0.0.0 is this machine
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # behind a carrier's NAT, RFC 6598; one cloud's metadata lives here
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # looks public, but inside Azure it is the machine's own platform
        "169.254.0.0/16",  # link-local, RFC 3927, and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.88.99.0/24",  # 6to4 relays, deprecated by RFC 7526
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks, RFC 2544
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # protocol assignments, RFC 2928: Teredo and ORCHID among them
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4: any IPv4 address in disguise, RFC 3056
        "3ffe::/16",  # the former 6bone, RFC 3701
        "3fff::/20",  # documentation, RFC 9637
    )
)
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
"""The public part of IPv6 (RFC 4291, 2.4). Outside are loopback, unspecified, mapped and compatible IPv4, ULA, link-
and site-local, multicast, discard-only, and NAT64's local prefix 64:ff9b:1::/48 (RFC 8215)."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses seen from an IPv6-only network (RFC 6052); the IPv4 address in the last 32 bits decides."""

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_LOCAL_NAME = re.compile(r"(.*\.)?(localhost|local|internal)")
_ENTRY = re.compile(r"(?P<host>\[[^\[\]\s]+\]|[^\[\]\s:/@*]+)(:(?P<port>[0-9]{1,5}))?")


class SsrfGuard:
    """Check hosts and choose the addresses to connect to. Thread-safe; needs no closing.

    ``allow_hosts``: private hosts that callers may reach, each as in a URL: ``name``, ``name:port``, an address,
    ``[v6]`` or ``[v6]:port``. Raises ValueError for any other entry.

    Each name is looked up in a thread of its own, shared by its callers, and abandoned after ``deadline_s`` seconds: a
    name server that never answers costs one thread and does not delay other names.
    """

    def __init__(
        self, allow_hosts: Sequence[str] = (), *, lookup: Lookup | None = None, deadline_s: float = 5.0
    ) -> None:
        self._allowed = frozenset(_entry(text) for text in allow_hosts)
        self._lookup = lookup or system_lookup
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], Future[Sequence[str]]] = {}

    def allows(self, host: str, port: int) -> bool:
        """Whether the owner lists this host as written."""
        key = _key(host)
        return (key, None) in self._allowed or (key, port) in self._allowed

    def check_host(self, host: str, port: int) -> None:
        """Check a host without a look-up.

        Raises Permanent ``private_address`` for an address that is not public and for an unusual spelling.
        """
        if not self.allows(host, port):
            _judged(host)

    def pin(self, host: str, port: int) -> str:
        """Return the address to connect to for ``host``.

        Raises Permanent ``private_address`` if any of its addresses is not public and the owner does not list the host,
        Transient ``unreachable`` if it has none.
        """
        if self.allows(host, port):
            known = _address(_key(host))
            return str(known or self._addresses(_key(host), port)[0])
        found = _judged(host)
        if not isinstance(found, str):
            return str(found)
        addresses = self._addresses(found, port)
        if not all(is_public(address) for address in addresses):
            raise Permanent("private_address", f"{found} has an address that is not on the public internet.")
        return str(addresses[0])

    def _addresses(self, name: str, port: int) -> list[Address]:
        try:
            texts = self._look_up(name, port).result(self._deadline_s)
        except (OSError, UnicodeError) as error:
            raise Transient("unreachable", f"{name} has no address now ({type(error).__name__}).") from None
        addresses = [_address(text) for text in texts]
        if not addresses or None in addresses:
            raise Transient("unreachable", f"{name} has no usable address.")
        return [address for address in addresses if address is not None]

    def _look_up(self, name: str, port: int) -> Future[Sequence[str]]:
        with self._lock:
            # Only look-ups in progress are shared: an address may change between two calls.
            self._running = {key: future for key, future in self._running.items() if not future.done()}
            if (name, port) not in self._running:
                if len(self._running) >= LOOKUPS:
                    text = f"{name} was not looked up: too many other look-ups do not answer."
                    raise Transient("unreachable", text)
                self._running[name, port] = run_in_thread("look-up", partial(self._lookup, name, port))
            return self._running[name, port]


def system_lookup(name: str, port: int) -> list[str]:
    """Return every address of ``name`` from the operating system, its preferred one first (RFC 6724)."""
    rows = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in rows]


def is_public(address: Address) -> bool:
    """Whether this address is on the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64 and address.scope_id is None:
            return is_public(ipaddress.IPv4Address(address.packed[-4:]))
        if address not in _GLOBAL_UNICAST_V6 or address.scope_id is not None:
            return False
    return not any(address in block for block in _NOT_PUBLIC)


def _judged(host: str) -> Address | str:
    """Return a public address, or a name to look up. Raises Permanent ``private_address``."""
    bare = bare_host(host)
    if ":" in bare or bare != host:
        address = _address(bare)
        return _public(None if isinstance(address, ipaddress.IPv4Address) else address)
    name = _ascii(bare)
    if not _NAME.fullmatch(name):
        raise Permanent("private_address", "The host is not written as a name or an address is.")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        # No name ends in a number (WHATWG URL, "ends in a number"); the C library reads 2130706433, 0x7f.1, 127.1 and
        # 0177.0.0.1 as 127.0.0.1.
        return _public(_address(name))
    if _LOCAL_NAME.fullmatch(name):
        raise Permanent("private_address", f"{name} is a name of a local network or machine.")
    return name


def _public(address: Address | None) -> Address:
    if address is None:
        raise Permanent("private_address", "The host is an address that is not written as addresses are.")
    if not is_public(address):
        raise Permanent("private_address", f"{address} is not on the public internet.")
    return address


def _address(text: str) -> Address | None:
    """Parse four decimal numbers, or IPv6 as in RFC 4291; None for any other spelling."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _entry(text: str) -> tuple[str, int | None]:
    """Parse an entry of ``allow_hosts`` into the host's key and its port, None for any port."""
    bare = _address(text)
    match = _ENTRY.fullmatch(text)
    if bare is None and match is None:
        raise ValueError(f"allow_hosts: “{text}” is not a host name, an address, or one of them with a port")
    if bare is not None or match is None:
        return _key(text), None
    host, port = match["host"], match["port"]
    if host.startswith("[") and _address(bare_host(host)) is None:
        raise ValueError(f"allow_hosts: “{text}” has brackets around something other than an IPv6 address")
    if port is not None and not 0 < int(port) < 65_536:
        raise ValueError(f"allow_hosts: the port of “{text}” must be between 1 and 65535")
    return _key(host), None if port is None else int(port)


def _key(host: str) -> str:
    """Return the key of a host in the owner's list: an address in its shortest form, a name in lower case."""
    bare = bare_host(host)
    try:
        return str(_address(bare) or _ascii(bare))
    except Permanent:
        return bare


def _ascii(name: str) -> str:
    """Return the name as the resolver reads it (RFC 3490: full-width letters and dots become plain ones).

    A resolver takes “①②⑦.⓪.⓪.①” for 127.0.0.1, so the conversion precedes the check.
    """
    if name.isascii():
        return name.lower()
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise Permanent("private_address", "The host is not written as a name or an address is.") from None
