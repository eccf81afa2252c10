"""Device list: the local user's push devices, active and inactive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import flet as ft

from flashflow.backend import Device
from flashflow.views.controls.buttons import named_button, on_press
from flashflow.views.controls.formatting import one_line
from flashflow.views.controls.layout import card, column, hairline, mark_row
from flashflow.views.controls.relative_time import ago, exact
from flashflow.views.controls.texts import body, hint, small
from flashflow.views.controls.tokens import GOOD, GRID, MUTED
from flashflow.views.settings.part import SettingsPart
from flashflow.views.shared.delivery_labels import PLATFORMS
from flashflow.views.shared.screen_base import Screen

ICONS = {
    "desktop": ft.Icons.COMPUTER,
    "ios": ft.Icons.PHONE_IPHONE,
    "android": ft.Icons.PHONE_ANDROID,
    "web": ft.Icons.PUBLIC,
}
KINDS = {**PLATFORMS, "desktop": "Computer"}


class Devices(SettingsPart):
    """The device list; removing a device needs a confirmation."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(screen)
        self._devices: Sequence[Device] = ()
        self._list = column([], 12)
        self.control = card(self._list, key="devices")

    def load(self) -> Sequence[Device]:
        return self.backend.notifications.list_devices(self.backend.me)

    def set_data(self, devices: Sequence[Device]) -> None:
        self._devices = devices
        self.draw()

    def draw(self) -> None:
        now = self.screen.now()
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
        if self._confirming == device.id:
            texts.append(body(_question(device)))
            sure, remove = f"Remove for good: {name}", on_press(self._remove, device)
            removal = named_button(ft.FilledTonalButton, "Remove", sure, remove, key="remove")
            buttons = [removal, self.keep_button(name)]
        else:
            ask = on_press(self.confirm, device.id)
            buttons = [named_button(ft.TextButton, "Remove…", f"Remove: {name}", ask, key="ask")]
        color = GOOD if device.is_active else MUTED
        icon = ft.Icon(ICONS.get(device.platform, ft.Icons.DEVICES_OTHER), size=20, color=color)
        what = mark_row(icon, texts, spacing=2)
        what.col = {"xs": 12, "md": 8}
        wide = self.screen.wide
        end = ft.MainAxisAlignment.END if wide else ft.MainAxisAlignment.START
        actions = ft.Container(
            ft.Row(buttons, wrap=True, spacing=GRID, alignment=end),
            padding=ft.Padding.only(left=0 if wide else 2 * GRID),
            col={"xs": 12, "md": 4},
        )
        center = ft.CrossAxisAlignment.CENTER
        return ft.ResponsiveRow([what, actions], key=f"device-{device.id}", vertical_alignment=center, run_spacing=4)

    async def _remove(self, device: Device) -> None:
        self._confirming = None
        await self.write(self.backend.notifications.devices.remove_write, device.id, None)


def device_name(device: Device) -> str:
    """Return the device's kind, with the name or model that its app registered."""
    kind = KINDS.get(device.platform, device.platform)
    own = device.device_info.get("name") or device.device_info.get("model")
    return f"{kind} · {one_line(own, 60)}" if isinstance(own, str) and own.strip() else kind


def _question(device: Device) -> str:
    if device.platform == "desktop":
        return "Remove it? A computer that runs FlashFlow is registered again at its next start."
    return "Remove it? It receives no push notifications until its app registers it again."
