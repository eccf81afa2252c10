"""Preference rules: pure, from a user's choices to a verdict for one type and channel."""

from __future__ import annotations

from collections.abc import Mapping

from flashflow.backend.core.named_tuple import NamedTuple

Choices = Mapping[tuple[str, str], bool]
"""A user's choices: (notification type, channel) → allowed. ``*`` stands for every type or channel,
``category:NAME`` for every type of a category."""

WORDS = {"in_app": "the app", "push": "push", "email": "e-mail", "sms": "SMS"}
ALL = "*"
CATEGORY = "category:"


class Verdict(NamedTuple):
    """Whether a channel may be used, with the code and the text of the deciding rule."""

    allowed: bool
    code: str
    reason: str


def may_use(choices: Choices, notification_type: str, channel: str, category: str | None = None) -> Verdict:
    """Whether the user allows this type on this channel.

    An explicit "off" for a whole channel always applies; otherwise the most specific choice does.
    """
    word = WORDS.get(channel, channel)
    if choices.get((ALL, channel)) is False:
        return Verdict(False, "channel_off", f"The user turned {word} off.")
    places = [
        ((notification_type, channel), "type_channel", f"“{notification_type}” by {word}"),
        ((notification_type, ALL), "type", f"“{notification_type}”"),
    ]
    if category is not None:
        group = CATEGORY + category
        places.append(((group, channel), "category_channel", f"everything of “{category}” by {word}"))
        places.append(((group, ALL), "category", f"everything of “{category}”"))
    places.append(((ALL, channel), "channel", word))
    places.append(((ALL, ALL), "everything", "all notifications"))
    for place, code, what in places:
        choice = choices.get(place)
        if choice is not None:
            on = "on" if choice else "off"
            return Verdict(choice, f"{code}_{on}", f"The user turned {what} {on}.")
    return Verdict(True, "default_on", "On by default.")
