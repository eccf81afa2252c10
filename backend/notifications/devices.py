"""Devices registered for push."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flashflow.backend.core.clock import DAY_MS
from flashflow.backend.core.errors import FlashFlowError, NotFound
from flashflow.backend.core.events import Event
from flashflow.backend.domain.device_address import DeviceAddress, device_address
from flashflow.backend.schemas.records import Device, DeviceRegistered
from flashflow.backend.schemas.requests import DeviceIn
from flashflow.backend.schemas.values import metadata_json
from flashflow.backend.store.engine.database import Store
from flashflow.backend.store.engine.writer import Tx, Write, each_item
from flashflow.backend.store.notifications import devices as table
from flashflow.backend.store.privacy.tombstones import unless_erased

Registration = tuple[DeviceIn, DeviceAddress, str]
"""A device, its push address, and the registering app."""


STALE_MS = 270 * DAY_MS
"""A token that no app has registered again for this long is stale [Firebase, "Manage FCM registration tokens"]."""


class Devices:
    """Register, list and remove a user's push devices."""

    def __init__(self, store: Store, new_id: Callable[[], str]) -> None:
        self._store = store
        self._new_id = new_id

    def of(self, user_id: str, app: str | None = None) -> tuple[Device, ...]:
        """A user's devices, newest first, tokens masked."""
        return tuple(self._store.read(lambda conn: table.list_devices(conn, user_id, app)))

    def newest(self, user_id: str, app: str | None, before: int, limit: int) -> tuple[list[tuple[int, Device]], bool]:
        """A page of (``seq``, device), newest first, and whether more follow."""
        return self._store.read(lambda conn: table.newest_devices(conn, user_id, app, before, limit))

    def register_write(self, device: DeviceIn, app: str) -> Write[Registration, DeviceRegistered]:
        """Build the write that registers a device, or moves a known one to this user. Raises ValidationError."""
        metadata_json(device.device_info, "device_info")
        return Write(self._register, (device, device_address(device.token, device.platform, device.device_info), app))

    def _register(self, tx: Tx, items: Sequence[Registration]) -> list[DeviceRegistered | FlashFlowError]:
        return unless_erased(tx, items, lambda item: (item[0].user_id,), lambda good: self._registered(tx, good))

    def _registered(self, tx: Tx, items: Sequence[Registration]) -> list[DeviceRegistered]:
        answers = []
        for device, address, app in items:
            known = table.device_by_identity(tx.conn, address.identity)
            now = table.save_device(tx, self._new_id(), device.user_id, device.platform, address, app)
            tx.events.append(Event("device", now.id, device.user_id, app))
            answers.append(DeviceRegistered(device=now, created=known is None))
        return answers

    def retire_stale(self) -> int:
        """Deactivate tokens that no app has registered again for 270 days; return how many."""
        return self._store.write(lambda tx: table.deactivate_stale(tx, tx.now_ms - STALE_MS))

    def remove_write(self, device_id: str, app: str | None) -> Write[tuple[str, str | None], Device]:
        """Build the write that deletes a device; another app's is not found."""
        return Write(self._remove, (device_id, app))

    @each_item
    def _remove(self, tx: Tx, item: tuple[str, str | None]) -> Device:
        device_id, app = item
        device = table.find_device(tx.conn, device_id, app)
        if device is None:
            raise NotFound(f"There is no device {device_id!r}.")
        table.delete_device(tx, device_id)
        tx.events.append(Event("device", device.id, device.user_id, device.app))
        return device
