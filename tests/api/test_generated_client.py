"""A Python client generated from the running server's OpenAPI document does an app's work against that server."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.server_process import ServerProcess, serving

GENERATOR = Path(sys.executable).with_name("openapi-python-client")
PACKAGE = "generated_flashflow_client"
NO_HOOKS = "post_hooks: []\n"
"""The generator would format 400 files."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("generated")) as running:
        yield running
        assert "Traceback" not in running.log


@pytest.fixture(scope="module")
def load(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Generate the client and return a function that imports one of its modules."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yml").write_text(NO_HOOKS, "utf-8")
    (folder / "openapi.json").write_bytes(httpx.get(f"{server.url}/openapi.json", trust_env=False).content)
    made = subprocess.run(
        [GENERATOR, "generate", "--path", "openapi.json", "--output-path", PACKAGE, "--meta", "none",
         "--config", "config.yml", "--fail-on-warning"],
        cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (made.returncode, made.stderr) == (0, ""), made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    try:
        yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture
def client(server: ServerProcess, load: Callable[[str], Any]) -> Iterator[Any]:
    options = {"raise_on_unexpected_status": True, "httpx_args": {"trust_env": False}}
    with load("client").AuthenticatedClient(base_url=server.url, token=server.key, **options) as made:
        yield made


@pytest.fixture
def models(load: Callable[[str], Any]) -> Any:
    return load("models")


def test_every_route_has_its_function(load: Callable[[str], Any], server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    for methods in document["paths"].values():
        for operation in methods.values():
            module = load(f"api.{_folder(operation['tags'][0])}.{operation['operationId']}")
            assert callable(module.sync_detailed)


def _folder(tag: str) -> str:
    return {"import": "import_"}.get(tag, tag.replace("-", "_"))


def test_the_client_tracks_and_reads_analytics(load: Callable[[str], Any], client: Any, models: Any) -> None:
    metadata = models.ActivityInMetadataType0.from_dict({"plan": "pro"})
    activity = models.ActivityIn("ada", "page_view", page_url="/pricing", metadata=metadata, activity_id="one")
    track = load("api.activity.track_activity")
    first = track.sync_detailed(client=client, body=activity)
    assert (first.status_code, first.parsed.activity_id) == (201, "one")
    again = track.sync_detailed(client=client, body=activity)
    assert (again.status_code, again.parsed.duplicate) == (200, True)

    rows = [models.ActivityIn("ada", "export"), models.ActivityIn("", "export")]
    batch = load("api.activity.track_batch").sync(client=client, body=models.BatchIn(rows), idempotency_key="k")
    assert (batch.accepted, batch.duplicates, [row.index for row in batch.rejected]) == (1, 0, [1])
    assert batch.rejected[0].errors[0].field == "user_id"

    page = load("api.activity.list_activities").sync(client=client, user_id="ada", limit=1)
    assert page.activities[0].timestamp.utcoffset() is not None
    assert isinstance(page.next_cursor, str)
    metrics = load("api.analytics.get_user_analytics").sync("ada", client=client).analytics
    assert (metrics.total_activities, metrics.most_visited_pages[0].name) == (2, "/pricing")
    trend = load("api.analytics.get_trend").sync(client=client, interval=models.GetTrendInterval.DAY).trend
    assert sum(point.activities for point in trend.points) == 2


def test_the_client_sends_reads_the_inbox_and_sets_preferences(
    load: Callable[[str], Any], client: Any, models: Any
) -> None:
    action = models.ActionIn(label="Log", url="https://example.org/log")
    body = models.SendIn(user_id="bob", title="Build finished", message="All tests passed.", actions=[action])
    sent = load("api.notifications.send_notification").sync(client=client, body=body)
    assert sent.deliveries[0].status == "delivered"

    inbox = load("api.notifications.list_notifications").sync("bob", client=client)
    assert (inbox.unread_count, inbox.notifications[0].actions[0].url) == (1, action.url)
    read = load("api.notifications.read_notification").sync(sent.notification_id, client=client).notification
    assert read.read_at is not None
    assert load("api.notifications.list_notifications").sync("bob", client=client).unread_count == 0

    choice = models.PreferencesIn(user_id="bob", notification_type="*", channel="email", enabled=False)
    assert load("api.notifications.set_preferences").sync(client=client, body=choice).success
    matrix = load("api.notifications.get_preferences").sync("bob", client=client)
    assert [(one.channel, one.enabled) for one in matrix.preferences] == [("email", False)]


def test_the_client_tells_the_two_kinds_of_a_dry_run_apart(
    load: Callable[[str], Any], client: Any, models: Any
) -> None:
    alert = models.AlertIn(metric=models.AlertInMetric.ACTIVITIES, change_percent=-50.0)
    dry_run = load("api.rules.dry_run_rule_draft")
    assert dry_run.sync(client=client, body=models.RuleDraftIn(alert=alert)).examples == []
    load("api.activity.track_activity").sync(client=client, body=models.ActivityIn("cy", "signup"))
    found = dry_run.sync(client=client, body=models.RuleDraftIn(on=models.OnIn(activity_type="signup")))
    assert isinstance(found.examples[0], models.ActivityExample)


def test_the_client_gets_typed_problems(load: Callable[[str], Any], client: Any, models: Any) -> None:
    refused = load("api.activity.track_activity").sync(client=client, body=models.ActivityIn("", ""))
    assert isinstance(refused, models.Problem)
    assert (refused.status, refused.code, refused.success) == (400, "validation_error", False)
    assert [error.field for error in refused.errors] == ["user_id", "activity_type"]
    missing = load("api.notifications.get_notification").sync("nope", client=client)
    assert (missing.status, missing.code) == (404, "not_found")
    stranger = load("client").AuthenticatedClient(
        base_url=client._base_url, token="nope", httpx_args={"trust_env": False}
    )
    with stranger:
        assert load("api.keys.list_keys").sync(client=stranger).code == "unauthorized"
