"""Device list: the local user's push devices, active and inactive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import flet as ft

from flashflow.views.controls.formatting import ago, exact, one_line
from flashflow.views.controls.tokens import GOOD, GRID, MUTED, Handler, body, hairline, hint, named_button, small
from flashflow.views.shared.delivery_labels import PLATFORMS
from flashflow.views.shared.widgets import card

if TYPE_CHECKING:
    from flashflow.backend import Device
    from flashflow.views.shared.screen_base import Screen

ICONS = {
    "desktop": ft.Icons.COMPUTER,
    "ios": ft.Icons.PHONE_IPHONE,
    "android": ft.Icons.PHONE_ANDROID,
    "web": ft.Icons.PUBLIC,
}
KINDS = {**PLATFORMS, "desktop": "Computer"}


class Devices:
    """The device list; removing a device needs a confirmation."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._confirming: str | None = None
        self._devices: Sequence[Device] = ()
        self._list = ft.Column(spacing=12, tight=True)
        self.control = card(self._list, key="devices")

    def set_data(self, devices: Sequence[Device]) -> None:
        self._devices = devices
        self._draw()

    def _draw(self) -> None:
        now = self._screen.now()
        rows: list[ft.Control] = []
        for device in self._devices:
            if rows:
                rows.append(hairline())
            rows.append(self._row(device, now))
        if not rows:
            rows.append(small("No device is registered. Apps register devices with POST /api/devices/register."))
        self._list.controls = rows

    def _row(self, device: Device, now: datetime) -> ft.Control:
        name = device_name(device)
        state = "Active" if device.is_active else "Inactive"
        used = "never used" if device.last_used_at is None else f"last used {ago(device.last_used_at, now)}"
        origin = f" · from {one_line(device.app, 60)}" if device.app not in ("", "local") else ""
        detail = small(f"{state} · {used} · {device.token}{origin}")
        if device.last_used_at is not None:
            detail.tooltip = hint(exact(device.last_used_at, now))
        texts: list[ft.Control] = [body(name), detail]
        buttons: list[ft.Control] = []
        if self._confirming == device.id:
            texts.append(body(_question(device)))
            sure = f"Remove for good: {name}"
            buttons.append(named_button(ft.FilledTonalButton, "Remove", sure, self._remover(device), key="remove"))
            buttons.append(named_button(ft.TextButton, "Keep", f"Keep: {name}", self._confirm(None), key="keep"))
        else:
            buttons.append(
                named_button(ft.TextButton, "Remove…", f"Remove: {name}", self._confirm(device.id), key="ask")
            )
        what = ft.Row(
            [
                ft.Icon(
                    ICONS.get(device.platform, ft.Icons.DEVICES_OTHER),
                    size=20,
                    color=GOOD if device.is_active else MUTED,
                ),
                ft.Column(texts, spacing=2, expand=True, tight=True),
            ],
            spacing=12,
            vertical_alignment=ft.CrossAxisAlignment.START,
            col={"xs": 12, "md": 8},
        )
        wide = self._screen.wide
        end = ft.MainAxisAlignment.END if wide else ft.MainAxisAlignment.START
        actions = ft.Container(
            ft.Row(buttons, wrap=True, spacing=GRID, alignment=end),
            padding=ft.Padding.only(left=0 if wide else 2 * GRID),
            col={"xs": 12, "md": 4},
        )
        return ft.ResponsiveRow(
            [what, actions],
            key=f"device-{device.id}",
            vertical_alignment=ft.CrossAxisAlignment.CENTER,
            run_spacing=4,
        )

    def _confirm(self, device_id: str | None) -> Handler:
        async def confirm(_: object) -> None:
            self._confirming = device_id
            self._draw()
            self._screen.redraw()

        return confirm

    def _remover(self, device: Device) -> Handler:
        async def remove(_: object) -> None:
            self._confirming = None
            services = self._screen.backend.notifications
            await self._screen.act(lambda: services.store.run(services.devices.remove_write(device.id, None)))

        return remove


def device_name(device: Device) -> str:
    """Return the device's kind, with the name or model that its app registered."""
    kind = KINDS.get(device.platform, device.platform)
    own = device.device_info.get("name") or device.device_info.get("model")
    return f"{kind} · {one_line(own, 60)}" if isinstance(own, str) and own.strip() else kind


def _question(device: Device) -> str:
    if device.platform == "desktop":
        return "Remove it? A computer that runs FlashFlow is registered again at its next start."
    return "Remove it? It receives no push notifications until its app registers it again."
