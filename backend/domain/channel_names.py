"""The channels there are: the four, and those the owner named."""

from __future__ import annotations

from collections.abc import Iterable

from flashflow.backend.core.errors import ValidationError
from flashflow.backend.schemas.records import CHANNELS


class ChannelNames:
    """``named`` are the owner's, from ``flashflow.toml``."""

    def __init__(self) -> None:
        self.named: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        return (*CHANNELS, *self.named)

    def check(self, field: str, channels: Iterable[str]) -> None:
        """Raises ValidationError for a channel that there is not."""
        for channel in channels:
            if channel not in CHANNELS and channel not in self.named:
                raise ValidationError.of(field, f"there is no channel “{channel}”; there are {', '.join(self.all)}")
