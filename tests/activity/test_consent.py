"""Consent and masking: what may not be kept is not kept, from the moment the owner or the user says so."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashflow.backend import UserActivityService
from flashflow.backend.activity.consent import mask_ip
from flashflow.backend.data.import_activities import import_activities_write
from flashflow.backend.settings.model import PrivacySettings
from tests.support.api_client import BATCH, START, TRACK, fresh, ok, problem, rows_in
from tests.support.server_process import ServerProcess, eventually, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("consent")) as running:
        yield running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[UserActivityService]:
    with UserActivityService(tmp_path / "a.db") as opened:
        yield opened


def say(service: UserActivityService, user: str, tracking: bool) -> None:
    service.store.run(service.admission.consent_write(user, tracking))


def kept(service: UserActivityService) -> list[str]:
    return sorted(activity.user_id for activity in service.list_activities().activities)


NOT_STORED = {"stored": False, "reason": "no_consent"}


@pytest.mark.parametrize(
    ("rule", "tracked"),
    [("all", ["never asked", "said yes"]), ("consented", ["said yes"]), ("none", [])],
)
def test_the_owners_rule_and_the_users_word_decide_who_is_tracked(
    service: UserActivityService, rule: Any, tracked: list[str]
) -> None:
    users = ["never asked", "said no", "said yes"]
    say(service, "said yes", True)
    say(service, "said no", False)
    service.admission.settings = PrivacySettings(tracking=rule)
    for user in users:
        answer = service.track_activity(user, "t")
        assert answer.stored is (user in tracked)
        assert (answer.activity_id is None) is (answer.reason == "no_consent") is (user not in tracked)
        assert service.admission.consent(user).tracked is (user in tracked)
        assert (service.start_session(user).session is not None) is (user in tracked)
    assert kept(service) == tracked
    batch = service.track_batch([{"user_id": user, "activity_type": "t"} for user in users])
    assert batch.accepted == len(tracked)
    assert [users[row.index] for row in batch.rejected] == [user for user in users if user not in tracked]
    assert all("no_consent" in message for row in batch.rejected for _, message in row.errors)


def test_nothing_of_what_was_turned_away_is_in_the_file(service: UserActivityService, tmp_path: Path) -> None:
    say(service, "asked", False)
    service.track_activity("asked", "secret-type", metadata={"secret": "secret-value"}, ip_address="192.0.2.7")
    service.start_session("asked", {"secret": "secret-device"})
    service.track_batch([{"user_id": "asked", "activity_type": "secret-type"}])
    for table in ("user_activities", "user_sessions", "user_analytics", "activities_by_user"):
        assert rows_in(tmp_path / "a.db", f"SELECT * FROM {table}") == []
    assert not any(b"secret-" in path.read_bytes() for path in tmp_path.iterdir())


def test_a_heartbeat_without_consent_leaves_the_session_as_it_was(service: UserActivityService) -> None:
    session = service.start_session("ada").session
    assert session is not None
    say(service, "ada", False)
    assert service.heartbeat(session.id).last_seen == session.last_seen


def test_the_api_says_that_nothing_was_stored_and_why(server: ServerProcess) -> None:
    user = fresh()
    consent = ok(server.api("GET", f"/api/users/{user}/consent"))["consent"]
    assert (consent["tracking"], consent["setting"], consent["tracked"]) == (None, "all", True)
    consent = ok(server.api("POST", f"/api/users/{user}/consent", {"tracking": False}))["consent"]
    assert (consent["tracking"], consent["tracked"]) == (False, False)
    body = ok(server.api("POST", TRACK, {"user_id": user, "activity_type": "t"}))
    assert body == {"success": True, "activity_id": None} | NOT_STORED
    body = ok(server.api("POST", START, {"user_id": user}))
    assert body == {"success": True, "session_id": None} | NOT_STORED
    body = ok(server.api("POST", BATCH, {"activities": [{"user_id": user, "activity_type": "t"}]}))
    assert (body["accepted"], body["rejected"][0]["errors"][0]["field"]) == (0, "user_id")
    ok(server.api("POST", f"/api/users/{user}/consent", {"tracking": True}))
    ok(server.api("POST", TRACK, {"user_id": user, "activity_type": "t"}), 201)
    problem(server.api("POST", f"/api/users/{user}/consent", {"tracking": "yes"}), "validation_error", "tracking")


def test_a_change_of_the_file_is_in_force_within_seconds(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        settings = tmp_path / "flashflow.toml"

        def track() -> dict[str, Any]:
            return dict(server.api("POST", TRACK, {"user_id": "ada", "activity_type": "t"}).json())

        assert track()["activity_id"]
        settings.write_text('[privacy]\ntracking = "consented"\nmask_ip = true\n', "utf-8")
        eventually(lambda: track()["activity_id"] is None, what="the new rule")
        settings.write_text("[privacy]\nmask_ip = true\n", "utf-8")
        activity_id = eventually(lambda: track()["activity_id"], what="the old rule")
        addresses = dict(
            rows_in(tmp_path / "user_activities.db", "SELECT ip_address, COUNT(*) FROM user_activities GROUP BY 1")
        )
        assert set(addresses) == {bytes([127, 0, 0, 1]), bytes([127, 0, 0, 0])}
        assert activity_id


# --- masking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("192.0.2.77", "192.0.2.0"),
        ("2001:db8:1234:5678::1", "2001:db8:1234::"),
        ("::ffff:192.0.2.77", "192.0.2.0"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::"),
        ("testclient", None),
        ("", None),
    ],
)
def test_an_address_is_masked_to_its_network(address: str, masked: str | None) -> None:
    assert mask_ip(address) == masked


@given(st.ip_addresses())
def test_a_masked_address_is_in_the_same_network_and_tells_no_more(address: Any) -> None:
    masked = mask_ip(str(address))
    assert masked is not None
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits = 24 if address.version == 4 else 48
    assert ipaddress.ip_network(f"{address}/{bits}", strict=False).network_address == ipaddress.ip_address(masked)


def test_activities_sessions_and_imports_are_masked_before_they_are_stored(
    service: UserActivityService, tmp_path: Path
) -> None:
    service.admission.settings = PrivacySettings(mask_ip=True)
    service.track_activity("ada", "t", ip_address="192.0.2.77")
    service.start_session("bob", ip_address="2001:db8:1234:5678::1")
    row = b'{"user_id":"eve","activity_type":"t","timestamp":"2026-01-01T00:00:00Z","ip_address":"198.51.100.9"}'
    service.store.run(import_activities_write(service, [row]))
    assert [a.ip_address for a in service.list_activities(user_id="ada").activities] == ["192.0.2.0"]
    assert [s.ip_address for s in service.get_user_sessions("bob").sessions] == ["2001:db8:1234::"]
    assert [a.ip_address for a in service.list_activities(user_id="eve").activities] == ["198.51.100.0"]
    assert not any(b"192.0.2.77" in path.read_bytes() for path in tmp_path.iterdir())
