"""Choose the HTTP parser of the server: httptools where it is installed, else h11."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Literal

from flashflow.backend.api.http.connection_places import ConnectionWatch, Limits


def http_protocol(
    limits: Limits, parser: Literal["auto", "httptools", "h11"] = "auto", watch: ConnectionWatch | None = None
) -> type[asyncio.Protocol]:
    """A protocol class for one server: give it to ``uvicorn.Config(http=...)`` and to no second server. ``watch`` is
    for who wants to know of its connections.

    ``auto`` takes httptools where it is installed and h11 elsewhere (phones).
    """
    own = {"limits": limits, "watch": watch or ConnectionWatch(limits)}
    if parser == "httptools" or (parser == "auto" and find_spec("httptools")):
        from flashflow.backend.api.http.limits_httptools import LimitedHttpTools

        return type("HttpProtocol", (LimitedHttpTools,), own)
    from flashflow.backend.api.http.limits_h11 import LimitedH11

    return type("HttpProtocol", (LimitedH11,), own)
