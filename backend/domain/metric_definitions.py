"""Definitions of the metrics, as screens and the API show them (docs/analytics.md)."""

from __future__ import annotations

DEFINITIONS = {
    "active_users": "Different users with at least one activity in the period.",
    "new_users": "Users whose first activity ever is in the period.",
    "sessions": (
        "Visits that began in the period. A visit ends after 30 minutes without an activity, or after 24 hours, and "
        "is never split at midnight."
    ),
    "activities": "Everything apps recorded of their users in the period.",
    "engagement_rate": (
        "The share of sessions that lasted over 10 seconds, or had at least 2 distinct pages, or a key activity."
    ),
    "bounce_rate": "The share of sessions that were not engaged: 1 − engagement rate.",
    "avg_session_duration": "Seconds from a session's start to its end, or to its latest activity while it is open.",
    "pages_per_session": "Distinct pages of a session, on average.",
    "dau": "Different users with an activity on the period's last day.",
    "wau": "Different users with an activity in the 7 days that end with the period.",
    "mau": "Different users with an activity in the 28 days that end with the period.",
    "stickiness": "Daily active users on average over 28 days, as a share of the monthly active ones.",
    "pages": "Activities by their page_url.",
    "features": "Activities by metadata.feature where they name one, else by their type; looking at a page is none.",
    "referrers": "Activities that name a referrer, by its host.",
    "apps": "Activities by the app that recorded them.",
    "types": "Activities by their activity_type.",
    "heatmap": "Activities by weekday and hour on the workspace's clock.",
    "retention_on": (
        "Of the users whose first activity ever was on a day, the share active on the N-th day after it. A day that is "
        "not over is empty and leaves the average."
    ),
    "retention_on_or_after": (
        "Of the users whose first activity ever was on a day, the share active on the N-th day after it or later."
    ),
    "funnel": (
        "Users who did the steps in this order, with anything in between, within the window from their first step; the "
        "first such step in the period starts the clock."
    ),
    "engagement_score": (
        "0 to 100 over 28 days: 100 × the mean of C (sessions deeper than the workspace's mean), D (longer than its "
        "mean), R (deep and within 7 days), I (with a key activity), F (active days / 28) and A (key activity types "
        "used); I and A only where key activities are defined."
    ),
    "change": (
        "(now − before) / before over an equal elapsed time; “new” where there was nothing before and there is now."
    ),
}
