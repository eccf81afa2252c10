"""The Host and Origin headers that this server accepts.

Each entry is expanded at start to every spelling that a client may send; a request costs one set look-up.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from flashflow.backend.core.errors import ValidationError

LOOPBACK_NAMES = ("127.0.0.1", "localhost")
DEFAULT_PORTS = {"http": 80, "https": 443}
_ENTRY = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]{0,252})(?::(?P<port>[0-9]{1,5}))?")


class HostNames:
    """Loopback and the listening address with the listening port, and the names allowed by the owner.

    ``allowed`` holds the values of ``--allow-host``: ``NAME:PORT`` matches that port; ``NAME`` the listening port and
    the default ports of http and https. Clients may omit a default port. A proxy may serve an allowed name over https;
    own names are plain http. Raises ValidationError.
    """

    def __init__(self, listen: str, port: int, allowed: Sequence[str] = ()) -> None:
        self._own: dict[bytes, frozenset[bytes]] = {}
        for name in (*LOOPBACK_NAMES, *_listening_names(listen)):
            authorities = _authorities("http", name, port)
            origins = frozenset(f"http://{authority}".encode() for authority in authorities)
            self._own |= {authority.encode(): origins for authority in authorities}
        hosts: set[str] = set()
        origins_allowed: set[str] = set()
        for text in allowed:
            name, only = _parse(text)
            for scheme, default in DEFAULT_PORTS.items():
                for number in {default, port} if only is None else {only}:
                    authorities = _authorities(scheme, name, number)
                    hosts |= authorities
                    origins_allowed |= {f"{scheme}://{authority}" for authority in authorities}
        self._hosts = frozenset(host.encode() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins_allowed)

    def accepts(self, host: bytes) -> bool:
        """Whether a Host header (in lower case) names this server."""
        return host in self._own or host in self._hosts

    def is_same_origin(self, origin: bytes, host: bytes) -> bool:
        """Whether a page of ``origin`` may send requests with this Host header (both in lower case).

        An allowed origin is valid with any Host: many proxies replace the Host with the address they forward to.
        """
        return origin in self._origins or origin in self._own.get(host, ())

    def websocket_sources(self) -> list[str]:
        """Return the server's WebSocket origins, for a Content-Security-Policy."""
        origins = self._origins.union(*self._own.values())
        return sorted("ws" + origin.decode().removeprefix("http") for origin in origins)


def bracketed(host: str) -> str:
    """Return ``host`` as written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def is_everywhere(listen: str) -> bool:
    """Whether ``listen`` means every interface (0.0.0.0, ::): an address to bind, never a Host."""
    address = _address(listen)
    return address is not None and address.is_unspecified


def _listening_names(listen: str) -> list[str]:
    address = _address(listen)
    if is_everywhere(listen):
        return ["[::1]"] if isinstance(address, ipaddress.IPv6Address) else []
    return [bracketed(listen.lower()), bracketed(str(address or listen.lower()))]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _authorities(scheme: str, name: str, port: int) -> set[str]:
    """Return ``name:port``, and ``name`` alone for the scheme's default port."""
    return {f"{name}:{port}", name} if port == DEFAULT_PORTS[scheme] else {f"{name}:{port}"}


def _parse(text: str) -> tuple[str, int | None]:
    """Return one ``--allow-host`` as the name that clients send, and its port if given."""
    if (address := _address(text)) is not None:
        return bracketed(str(address)), None
    try:
        match = _ENTRY.fullmatch(text if text.isascii() else text.encode("idna").decode())
        if match is None:
            raise ValueError(text)
        name, port = match["name"].lower(), match["port"]
        if name.startswith("["):
            name = bracketed(str(ipaddress.IPv6Address(name[1:-1])))
        if port is not None and not 0 < int(port) < 65_536:
            raise ValueError(port)
    except ValueError:  # UnicodeError is one
        raise ValidationError.of(
            "--allow-host", f"“{text}” is not a host name, an address, or one of them with a port, as in box.lan:9000"
        ) from None
    return name, None if port is None else int(port)
