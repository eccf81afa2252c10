"""Path and query parameters that several routes share."""

from __future__ import annotations

from datetime import datetime

from flashflow.backend.api.framework.api_request import ApiRequest
from flashflow.backend.core.error_collector import ErrorCollector
from flashflow.backend.core.errors import NotFound
from flashflow.backend.schemas.requests import Input, UserId, build
from flashflow.backend.schemas.values import timestamp_ms


class UserPath(Input, frozen=True, kw_only=True):
    """A user id in a path, held to the rules of one in a body."""

    user_id: UserId


def path_user(call: ApiRequest) -> str:
    """Return the path's user id. Raises NotFound for an empty one, ValidationError for an invalid one."""
    if not call.params["user_id"]:
        raise NotFound("There is nothing at this address.")
    return build(UserPath, user_id=call.params["user_id"]).user_id


def time_range(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    """Return both ends in ms since 1970. Raises ValidationError, naming every end out of range."""
    ends: list[int | None] = [None, None]
    faults = ErrorCollector()
    for index, (field, time) in enumerate((("since", since), ("until", until))):
        with faults:
            if time is not None:
                ends[index] = timestamp_ms(field, time)
    faults.done()
    return ends[0], ends[1]
