"""A Flet app with FlashFlow in it: activities, a notification, the live bell, and the notification settings.

python examples/todo_app.py          (with FlashFlow running on the same machine, for the same user)

Without FlashFlow the app works too: activities and notifications wait in a file until it runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import flet as ft

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flashflow.client import Client
from flashflow.controls import NotificationBell, NotificationSettings, connect

client = Client(app="todo")
flashflow = connect(client)


def main(page: ft.Page) -> None:
    """Build the page of one session."""
    page.title = "To do"
    tasks = ft.Column()
    task = ft.TextField(label="New task", expand=True)

    def add(_: object) -> None:
        title = (task.value or "").strip()
        if title:
            tasks.controls.append(ft.Checkbox(label=title, on_change=tick))
            task.value = ""
            client.track("task_added", {"feature": "checklist"})

    def tick(event: ft.Event[ft.Checkbox]) -> None:
        if not event.control.value:
            return
        client.track("task_done", {"feature": "checklist"})
        if all(isinstance(one, ft.Checkbox) and one.value for one in tasks.controls):
            client.send("All done", "Nothing is left for today.", notification_type="tasks", wait=0)

    def show_settings(_: object) -> None:
        settings = NotificationSettings(source=flashflow.preferences(client.user_id))
        page.show_dialog(
            ft.AlertDialog(
                title=ft.Text("Notifications"),
                content=ft.Container(ft.Column([settings], scroll=ft.ScrollMode.AUTO), width=800),
                actions=[ft.TextButton("Close", on_click=lambda _: page.pop_dialog())],
            )
        )

    task.on_submit = add
    page.appbar = ft.AppBar(
        title=ft.Text("To do"),
        actions=[
            NotificationBell(source=flashflow.inbox(client.user_id)),
            ft.TextButton("Notification settings", on_click=show_settings),
        ],
    )
    page.add(ft.Row([task, ft.FilledButton("Add", on_click=add)]), tasks)


if __name__ == "__main__":
    ft.run(main)
