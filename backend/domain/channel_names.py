"""Names of the built-in and the owner's own channels."""

from __future__ import annotations

from collections.abc import Iterable

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas.records import CHANNELS


class ChannelNames:
    """Known channel names; ``named`` are the owner's, from ``flashflow.toml``."""

    def __init__(self) -> None:
        self.named: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*CHANNELS, *self.named)

    def check(self, field: str, channels: Iterable[str]) -> None:
        """Raises ValidationError for an unknown channel."""
        for channel in channels:
            if channel not in CHANNELS and channel not in self.named:
                raise ValidationError.of(field, f"there is no channel “{channel}”; there are {', '.join(self.all)}")
