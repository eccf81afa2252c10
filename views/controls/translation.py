"""Translation of the controls' texts into the host app's language.

The English texts are the keys: ``NotificationBell(..., texts={"View all": "Alle anzeigen"})``. Pure, no Flet.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter

TEXTS = (
    # bell
    "Notifications",
    "Notifications, none unread",
    "Notifications, {unread:,} unread",
    "{bell}, do not disturb until {time}",
    "Latest notifications",
    "Mark all read",
    "Undo marking {count:,} read",
    "View all",
    "No notifications yet. Notifications from your apps appear here.",
    "Do not disturb 1 h",
    "Do not disturb until {time}",
    "End",
    "End do not disturb",
    "Retry",
    "The inbox could not be read",
    "The change could not be saved",
    # a notification in the list
    "unread",
    "read",
    "snoozed",
    "archived",
    "{title}, {state}",
    "{title}, {state}, from {app}",
    "{title}, {count:,} times",
    "High",
    "Urgent",
    # times
    "just now",
    "{count} min ago",
    "{count} h ago",
    "yesterday",
    "{count} days ago",
    "tomorrow",
    "{day}, {time}",
    "{day} {month}",
    "{day} {month} {year}",
    "{weekday} {day} {month} {year}, {time}",
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    *("January", "February", "March", "April", "June", "July", "August"),
    *("September", "October", "November", "December"),
    # preferences
    "All notifications",
    "A channel that is off here is off for every type below.",
    "A type appears here as soon as an app declares it or sends a notification of it.",
    "How often",
    "Critical",
    "passes quiet hours",
    "{type} is critical: passes quiet hours",
    "critical",
    "requests critical",
    "from {app}",
    "{type} by {channel}",
    "{type}: {digest}",
    "Off for all",
    "On for all",
    "Off for this type",
    "On for this type",
    "You turned it off",
    "You turned it on",
    "In app",
    "Push",
    "E-mail",
    "SMS",
    "The preferences could not be read",
    "The preference could not be saved",
    # digests
    "Every one",
    "Hourly",
    "Daily, {time}",
    "Set per type",
    "Digest, every hour",
    "Digest, daily at {time}",
    "Digest, daily at another time…",
    "Reset to default",
    "Time of the daily digest",
    "Save",
)
"""Every text of the controls, as a format string. A translation may use the same names in braces, or fewer."""


class Translation:
    """Texts by their English text; a text without a translation stays English.

    Raises ValueError for a text that the controls do not have, and for a translation with other names in braces.
    """

    def __init__(self, texts: Mapping[str, str] | None = None) -> None:
        self._texts = dict(texts or {})
        for text, translated in self._texts.items():
            if text not in TEXTS:
                raise ValueError(f"The controls have no text {text!r}; flashflow.controls.TEXTS lists them.")
            if more := _names(translated) - _names(text):
                raise ValueError(f"The translation of {text!r} has {{{min(more)}}}, which the text has not.")

    def __call__(self, text: str, **values: object) -> str:
        """Return the translation of ``text``, with ``values`` for the names in braces."""
        translated = self._texts.get(text, text)
        return translated.format_map(values) if values else translated


def _names(text: str) -> set[str]:
    """Return the names in braces. Raises ValueError where the braces do not match, and for anything but a name."""
    names = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    for name in names:
        if not name.isidentifier():
            raise ValueError(f"Write a name in braces, such as {{count}}: {text!r}.")
    return names


ENGLISH = Translation()
