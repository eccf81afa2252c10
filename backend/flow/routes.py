"""Built-in routes of the API, as endpoints of ``.flow`` files are compared with them."""

from __future__ import annotations

import msgspec

from flashflow.backend.flow.language.read_endpoints import Route
from flashflow.backend.schemas.requests import Input


def built_in_routes() -> tuple[Route, ...]:
    """Return every route of the API with the names of its fields."""
    from flashflow.backend.api.app import ENDPOINTS  # only files with endpoints need it

    return tuple(
        Route(
            method=endpoint.method, path=endpoint.path, request=_names(endpoint.body), query=_names(endpoint.query),
            required=_required(endpoint.body) | _required(endpoint.query),
        )
        for endpoint in ENDPOINTS
    )  # fmt: skip


def _names(kind: type[Input] | None) -> frozenset[str]:
    return frozenset() if kind is None else frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def _required(kind: type[Input] | None) -> frozenset[str]:
    if kind is None:
        return frozenset()
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if field.required)
