"""Write both files as the code of a checkout makes them, for tests of later schemas.

``python tests/support/make_old_files.py CHECKOUT``, run with the packages of that checkout, writes
``tests/data/{user_activities,notifications}.VERSION.db.gz`` with rows in every table. VERSION is the schema of the
files. Write them before a new schema lands, and do not write them again.
"""

from __future__ import annotations

import gzip
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"


def main(checkout: Path) -> None:
    sys.path[0] = str(checkout)
    from flashflow.backend import NotificationService, UserActivityService
    from tests.support.filled_files import fill

    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.db" for name in ("user_activities", "notifications")]
        with UserActivityService(files[0]) as activities, NotificationService(files[1]) as notifications:
            # Ids and addresses as long as encoded ones, and text that is no address.
            for user, address in (("dee", "192.0.2.7"), ("eve", "2001:db8::7"), ("fay", "home"), ("gil", "a" * 16)):
                session_id = f"session of {user} -"
                activities.start_session(user, session_id=session_id, ip_address=address)
                activities.track_activity(user, "page_view", session_id=session_id, activity_id=f"activity of {user}!")
            activities.start_session("hal")
            for title in ("Urgent", "Quiet"):
                notifications.send_notification("ada", title, "Message", data={"title": title})
            fill(activities, notifications)
        for file in files:
            with closing(sqlite3.connect(file)) as conn:
                (version,) = conn.execute("PRAGMA user_version").fetchone()
                conn.execute("PRAGMA journal_mode = delete").fetchall()
                conn.execute("VACUUM")
            target = DATA / f"{file.stem}.{version}.db.gz"
            target.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
            print(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
