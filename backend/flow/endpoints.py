"""Paths that the API serves besides the built-in ones, from the endpoints of a project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashflow.backend.flow.language.declarations import Alias, Endpoint, Project

if TYPE_CHECKING:
    from flashflow.backend.api.framework.aliases import AliasRoute


_IDS = frozenset({"user_id", "notification_id", "session_id", "activity_id"})
"""Texts of the API that a file may declare as numbers."""


def alias_routes(project: Project) -> tuple[AliasRoute, ...]:
    """Return the endpoints whose requests differ from those of built-in routes: by the path, the names of fields, ids
    that are numbers, or the scope. Without one, the server's libraries stay unloaded."""
    found = [(one, one.alias_of or Alias(one.method, one.path), _ids(one)) for one in project.endpoints]
    found = [(one, target, ids) for one, target, ids in found if one.alias_of is not None or ids or one.auth == "admin"]
    if not found:
        return ()
    from flashflow.backend.api.framework.aliases import AliasRoute, shape

    return tuple(
        AliasRoute(
            one.method, one.path, target.method, target.path, target.renamed, _defaults(one, target), ids,
            () if (one.method, shape(one.path)) == (target.method, shape(target.path)) else _required(one),
            one.auth == "admin",
        )
        for one, target, ids in found
    )  # fmt: skip


def _ids(endpoint: Endpoint) -> frozenset[str]:
    return frozenset(field.name for field in endpoint.request if field.type == "integer" and field.name in _IDS)


def _defaults(endpoint: Endpoint, target: Alias) -> tuple[tuple[str, object], ...]:
    """Return the defaults of fields by their names in the built-in route."""
    names = dict(target.renamed)
    fields = endpoint.query_params if target.method in {"GET", "DELETE"} else endpoint.request
    return tuple((names.get(field.name, field.name), field.default) for field in fields if field.default is not None)


def _required(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the required fields of a path that is not built in; a built-in one has other forms, with ``user_ids``."""
    return tuple(field.name for field in (*endpoint.request, *endpoint.query_params) if field.required)
