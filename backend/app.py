"""Composition root: create all services and workers, start and stop them in order."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flashflow.backend import health
from flashflow.backend.activity.service import UserActivityService
from flashflow.backend.analytics.service import Analytics
from flashflow.backend.api_keys import KeyRing
from flashflow.backend.core.clock import Clock, SystemClock
from flashflow.backend.core.config import ACTIVITY_FILE, NOTIFICATION_FILE, VERSION, Config
from flashflow.backend.core.errors import Erased, FlashFlowError, StorageError, ValidationError
from flashflow.backend.core.events import Bus, Event
from flashflow.backend.core.instance_file import INSTANCE_FILE, Instance, write_instance
from flashflow.backend.dashboard import DashboardMetrics
from flashflow.backend.data.erasure import Erasure
from flashflow.backend.data.export import Export
from flashflow.backend.data.retention import Retention
from flashflow.backend.delivery.channel_registry import LABELS, ChannelRegistry, ChannelState
from flashflow.backend.delivery.desktop.channel import DesktopChannel
from flashflow.backend.delivery.net.text import cut, is_web_link
from flashflow.backend.delivery.outbox import Outbox
from flashflow.backend.delivery.toast_dismissals import ToastDismissals
from flashflow.backend.jobs import Jobs
from flashflow.backend.maintenance import Maintenance
from flashflow.backend.notifications.channel_test import ChannelTest, ChannelTester
from flashflow.backend.notifications.service import NotificationService
from flashflow.backend.rules.metrics import AnalyticsMetrics
from flashflow.backend.rules.service import Rules
from flashflow.backend.rules.worker import RuleWorker
from flashflow.backend.settings.file import SettingsFile
from flashflow.backend.settings.keyring import secret_store
from flashflow.backend.settings.model import PrivacySettings, Settings
from flashflow.backend.store.engine.folder_lock import FolderLock
from flashflow.backend.store.flow.project_state import has_project
from flashflow.backend.store.notifications.outbox import OutboxTable
from flashflow.backend.store.notifications.search import index_tail
from flashflow.backend.this_computer import StartWrites, register_this_computer

if TYPE_CHECKING:
    from flashflow.backend.api.framework.aliases import AliasRoute
    from flashflow.backend.api.framework.context import FlowState, ReadThreads
    from flashflow.backend.api.server import HttpServer, Screens
    from flashflow.backend.flow.language.errors import FlowError
    from flashflow.backend.flow.project import FlowProject

log = logging.getLogger(__name__)

SYSTEM_TYPE = "flashflow.system"
SETTINGS_FILE = "flashflow.toml"
FAULT_LIMIT = 2_000
"""Characters of a settings error in the inbox notification."""


class Backend:
    """All services over one data folder, for the screens and the API.

    ``with Backend(config) as backend`` opens the files; ``start`` runs the workers and, optionally, the API. Raises
    StorageError or a subclass (AlreadyRunning, SchemaTooNew) where the folder cannot be used.
    """

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        self.config = config
        self.clock: Clock = clock or SystemClock()
        self.me = config.me
        self.version = VERSION
        self.data_dir: Path = config.data_dir
        self.url: str | None = None
        self.bus = Bus()
        self._notices: list[str] = []
        self._full: set[str] = set()
        self._settings_errors: list[str] = []
        self._applying = threading.Lock()
        self.desktop = DesktopChannel(on_action=self._toast_pressed)
        self._toast_dismissals = ToastDismissals(self.desktop.dismiss)
        self._lock = FolderLock(config.data_dir)
        try:
            self._forget_killed_server()
            self.activity = UserActivityService(
                config.data_dir / ACTIVITY_FILE,
                bus=self.bus,
                clock=self.clock,
                messages=self._notices,
                keep_record=True,
            )
            self.notifications = NotificationService(
                config.data_dir / NOTIFICATION_FILE,
                bus=self.bus,
                clock=self.clock,
                messages=self._notices,
                keep_record=True,
            )
            self.keys = KeyRing(self.notifications.store, config.data_dir, self._notices.append)
        except BaseException:
            self.close()
            raise
        self.channels = ChannelRegistry(config.data_dir, self.clock, self.desktop)
        secrets = secret_store(os.environ)
        self.settings = SettingsFile(config.data_dir / SETTINGS_FILE, environ=os.environ, secrets=secrets)
        self.exports = Export(self.activity, self.notifications)
        self.erasing = Erasure(self.activity, self.notifications)
        self.retention = Retention(self.activity, self.notifications)
        self.maintenance = Maintenance(
            self.activity,
            self.notifications,
            self.erasing,
            notices=self._notices,
            notify=lambda title, sentence: self._notify_me(title, sentence, "high"),
        )
        self.outbox = Outbox(OutboxTable(self.notifications.store), {}, self.clock)
        self._first_settings()
        self.dashboard = DashboardMetrics(self.activity, self.notifications)
        self.channel_tester = ChannelTester(self.notifications, lambda: self.channels.route_queues)
        self.rules = Rules(
            self.activity,
            self.notifications,
            send=self.notifications.sender.send,
            metrics=AnalyticsMetrics(self.activity.analytics),
        )
        self.rule_worker = RuleWorker(self.rules.evaluator)
        self.jobs = Jobs()
        self._start_writes = StartWrites()
        self._has_unsent_notices = True
        self.flow: FlowProject | None = None
        """The project of ``.flow`` files, if some are given."""
        self.alias_routes: Sequence[AliasRoute] = ()
        self._http: HttpServer | None = None
        self._readers: ReadThreads | None = None
        self._started_at = time.monotonic()
        self._closed = False

    # --- for the screens ------------------------------------------------------------------------------------------

    @property
    def notices(self) -> tuple[str, ...]:
        """Messages about the files and settings from the start, for the owner."""
        return (*self._notices, *self._settings_errors)

    @property
    def analytics(self) -> Analytics:
        """The analytics queries over the recorded activities."""
        return self.activity.analytics

    def channel_states(self) -> tuple[ChannelState, ...]:
        """Probe every channel. Blocks: do not call it on the event loop."""
        if self.notifications.policy_inputs.unread:
            return self.channels.states(missing=f"{SETTINGS_FILE} cannot be read.")
        return self.channels.states()

    def send_test(self, route: str, user_id: str | None = None) -> tuple[ChannelTest, ...]:
        """Send a test by a channel, or one route of push, to the owner or ``user_id``. Blocks until the provider has
        answered: do not call it on the event loop. Raises NotFound and Conflict."""
        return self.channel_tester.send_test(route, user_id or self.me)

    def web_push_key(self) -> str | None:
        """Return the public key for browser subscriptions; None where Web Push is not configured."""
        route_queue = self.channels.route_queues.get("webpush")
        return None if route_queue is None else str(route_queue.channel.public_key)  # type: ignore[attr-defined]

    def attempts(self) -> dict[tuple[str, ...], int]:
        """Return the number of attempts since the start, by route and outcome."""
        return self.outbox.attempts.counts()

    def routes(self) -> tuple[str, ...]:
        """Return the configured routes."""
        return self.outbox.routes

    def load_flow(self, paths: Sequence[Path]) -> tuple[FlowError, ...]:
        """Put the ``.flow`` files and folders in force, before ``start``; return their errors."""
        from flashflow.backend.flow.project import FlowProject

        flow = FlowProject(self, paths, report=self._report_job)
        errors = flow.load()
        if not errors:
            self.flow = flow
        return errors

    def _remove_flow(self) -> None:
        """Remove the declarations of ``.flow`` files of an earlier start. Raises StorageError."""
        if self.notifications.store.read(has_project):
            from flashflow.backend.flow.project import FlowProject

            FlowProject(self, []).load()

    def flow_state(self) -> FlowState:
        """Return the state of the ``.flow`` files."""
        if self.flow is None:
            return "none"
        return "ok" if self.flow.problem is None else "errors"

    # --- start and stop -------------------------------------------------------------------------------------------

    def start(self, *, api: bool = True, screens: Screens | None = None) -> None:
        """Start the outbox and the jobs, and with ``api`` the HTTP server (``screens`` on the same port).

        Raises PortTaken where the port is in use.
        """
        self.maintenance.finish_erasing()
        if api:
            self._bind(screens)
        self._start_writes.add(self._register_this_computer)
        self._start_writes.add(self._send_notices)
        if self.flow is None:
            self._start_writes.add(self._remove_flow)
        self._start_writes.run()
        if self.flow is not None:
            self.jobs.every(1, self.flow.poll)
            self.jobs.every(1, self.flow.run_due_jobs)
        self.bus.subscribe(self._on_events)
        self.bus.subscribe(self.rule_worker.on_events)
        self.outbox.start()
        self.rule_worker.start()
        self.jobs.every(5, self._start_writes.run)
        self.jobs.every(2, self.activity.store.probe)
        self.jobs.every(2, self.notifications.store.probe)
        self.jobs.every(1, self.notifications.release_due)
        self.jobs.every(1, self.notifications.schedules.run_due)
        self.jobs.every(2, self.follow_settings)
        self.jobs.every(3600, self.notifications.retire_stale_devices)
        self.jobs.every(30, self.activity.close_idle_sessions)
        self.jobs.every(5, self.activity.settle_metrics)
        self.jobs.every(5, lambda: self.activity.rollups.recount(seconds=1))
        self.jobs.every(5, self._notify_of_full_dimensions)
        self.jobs.every(3600, self.maintenance.delete_old_responses)
        self.jobs.every(30, self.rules.evaluator.check_alerts, long=True)
        self.jobs.every(3600, self.rules.delete_expired_state)
        self.jobs.every(3600, self.maintenance.back_up_daily, long=True)
        self.jobs.every(3600, self.retention.begin)
        self.jobs.every(60, self.erasing.finish, long=True)
        self.jobs.every(2, self.maintenance.replace_damaged_text)
        self.jobs.every(5, lambda: index_tail(self.notifications.store))
        self.jobs.start()
        self.maintenance.check_large_files()
        if self._http is not None:
            self._http.start()
            self._start_writes.add(self._announce)
            self._start_writes.run()

    def stop(self) -> None:
        """Stop every thread, checkpoint and close the files. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._notices and self._has_unsent_notices:  # a command opened the files: notices are sent once only
            self._start_writes.add(self._send_notices)
            self._start_writes.run()
        if self._http is not None:
            self._http.stop()
        self.jobs.stop()
        if self.flow is not None:
            self.flow.stop()
        if self._http is not None:  # after the last job that may write it
            (self.data_dir / INSTANCE_FILE).unlink(missing_ok=True)
        self.rule_worker.stop()
        self.retention.stop()
        self._toast_dismissals.stop()
        self.outbox.stop()
        if self._readers is not None:
            self._readers.shutdown()
        self.close()

    def close(self) -> None:
        """Close the files and release the folder lock."""
        try:
            for name in ("activity", "notifications"):
                service = getattr(self, name, None)
                if service is not None:
                    service.close()
        finally:
            self._lock.release()

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # --- parts ----------------------------------------------------------------------------------------------------

    def _bind(self, screens: Screens | None) -> None:
        """Bind the port before any write. Requests wait in its queue until the services have started."""
        from flashflow.backend.api.framework.context import ReadThreads
        from flashflow.backend.api.server import HttpServer  # import uvicorn and Starlette only for the API

        self._readers = ReadThreads()
        self._http = HttpServer(self, self._readers, screens, self._started_at)
        self.url = self._http.url

    def _announce(self) -> None:
        if not self._closed:
            write_instance(self.data_dir, Instance(str(self.url), os.getpid()))

    def _forget_killed_server(self) -> None:
        """Remove the address file of a killed server: another program may listen at that address."""
        path = self.data_dir / INSTANCE_FILE
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if path.is_dir():  # set aside when the address is written
                return
            raise StorageError(f"{path} cannot be used: {error.strerror}.") from error

    def new_launch_link(self) -> str:
        """Return a one-time address that opens the screens in a browser. Raises StorageError without an API."""
        if self._http is None:
            raise StorageError("There is no server to open.")
        return self._http.new_launch_link()

    def damaged_rows(self) -> int:
        """Return the number of rows whose text was not UTF-8."""
        return self.maintenance.damaged_rows()

    def storage_fault(self) -> str | None:
        """Return a code for the storage's fault; None without one."""
        return health.storage_fault((self.activity.store, self.notifications.store))

    def failing_threads(self) -> tuple[str, ...]:
        """Return the names of failing threads."""
        http = None if self._http is None else self._http.thread
        others = (*self.jobs.threads, self.outbox.thread, self.rule_worker.thread, self._toast_dismissals.thread, http)
        return health.failing_threads((self.activity.store, self.notifications.store), others)

    def _on_events(self, events: tuple[Event, ...]) -> None:
        kinds = {event.kind for event in events}  # read once: every commit comes here, from the writer's thread
        if "outbox" in kinds:
            self.outbox.wake()
        if "toast.dismissed" in kinds:
            self._toast_dismissals.add([event.id for event in events if event.kind == "toast.dismissed"])
        if "dimension.full" in kinds:
            self._full |= {event.id for event in events if event.kind == "dimension.full"}

    def _toast_pressed(self, notification_id: str, link: str | None) -> None:
        """Mark the notification of a pressed toast as read, and open the link of a pressed button."""
        try:
            self.notifications.mark_notification_as_read(notification_id)
        except FlashFlowError as refusal:
            log.info("a notification whose toast was pressed is not marked as read: %s", refusal)
        if link is not None and is_web_link(link):
            import webbrowser

            webbrowser.open(link)

    # --- settings -------------------------------------------------------------------------------------------------

    def follow_settings(self) -> None:
        """Apply ``flashflow.toml`` if it has changed."""
        known = self.settings.problem
        settings = self.settings.poll()
        if settings is None and self.notifications.policy_inputs.unread and self.settings.problem is None:
            settings = self.settings.settings  # they may equal the defaults applied before
        if settings is not None:
            self._apply(settings)
        if settings is not None or self.settings.problem != known:
            self.bus.publish([Event("settings")])

    def change_settings(self, place: str, values: Mapping[str, object] | None) -> None:
        """Write one table of ``flashflow.toml`` (``channels.email``; None removes it) and apply it. Raises
        ValidationError."""
        self._apply(self.settings.save(place, values))
        self.bus.publish([Event("settings")])

    def _first_settings(self) -> None:
        """Load the settings. After an error every route counts as configured, so that no queued delivery fails."""
        try:
            self._apply(self.settings.load())
        except ValidationError as error:
            words = f"{SETTINGS_FILE} cannot be read; deliveries beyond this computer wait until it can: {error}"
            self._settings_errors.append(cut(words, FAULT_LIMIT))
            self._apply(Settings(), unread=True)

    def _apply(self, settings: Settings, *, unread: bool = False) -> None:
        with self._applying:
            route_queues = self.channels.build(settings)
            self.notifications.policy_inputs.routes = frozenset(LABELS) if unread else frozenset(route_queues)
            self.notifications.policy_inputs.unread = unread
            self.notifications.channels.named = tuple(settings.others)
            self.outbox.configure(route_queues, complete=not unread)
            # With an unreadable file, use the most careful settings: mask addresses, prune nothing.
            self.activity.admission.settings = PrivacySettings(mask_ip=True) if unread else settings.privacy
            self.retention.settings = settings.retention

    def _register_this_computer(self) -> None:
        register_this_computer(self.notifications, self.data_dir, self.me, self._notices.append)

    def _send_notices(self) -> None:
        """Send the notices of the start to the owner's inbox."""
        losses = {self.activity.store.loss, self.notifications.store.loss}
        messages = [
            ("Some of your data is missing" if s in losses else "Your data was recovered", s) for s in self._notices
        ]
        for title, sentence in [
            *messages,
            *(("Your settings cannot be used", sentence) for sentence in self._settings_errors),
        ]:
            self._start_writes.add(partial(self._notify_me, title, sentence, "high"))
        self._has_unsent_notices = False

    def _notify_me(self, title: str, sentence: str, priority: str) -> None:
        with suppress(Erased):
            self.notifications.send_notification(
                self.me, title, sentence, notification_type=SYSTEM_TYPE, priority=priority, app="flashflow"
            )

    def _report_job(self, name: str, error: str) -> None:
        """Notify the owner of a job of a .flow file that fails."""
        self._notify_me(f"The job “{cut(name, 100)}” failed", cut(error, FAULT_LIMIT), "normal")

    def _notify_of_full_dimensions(self) -> None:
        """Notify the owner of dimensions that became full."""
        full, self._full = self._full, set()
        for kind in sorted(full):
            self._notify_me(
                f"There are too many different {kind}s to count each",
                f"New ones count as “all others”. Does an activity's {kind} contain a value that differs every time, "
                "like an id? Such a value belongs in its metadata.",
                "normal",
            )  # fmt: skip
