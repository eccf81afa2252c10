"""Choose the HTTP parser: httptools where installed, else h11."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Literal

from flashflow.backend.api.http.connection_limits import ConnectionWatch, Limits


def http_protocol(
    limits: Limits, parser: Literal["auto", "httptools", "h11"] = "auto", watch: ConnectionWatch | None = None
) -> type[asyncio.Protocol]:
    """Return the protocol class of one server, for ``uvicorn.Config(http=...)``. ``watch`` collects its connections.

    ``auto`` chooses httptools where installed, else h11 (phones).
    """
    own = {"limits": limits, "watch": watch or ConnectionWatch(limits)}
    if parser == "httptools" or (parser == "auto" and find_spec("httptools")):
        from flashflow.backend.api.http.limits_httptools import LimitedHttpTools

        return type("HttpProtocol", (LimitedHttpTools,), own)
    from flashflow.backend.api.http.limits_h11 import LimitedH11

    return type("HttpProtocol", (LimitedH11,), own)
