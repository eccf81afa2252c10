"""Address file of the running server, for the command line and apps of the same OS user."""

from __future__ import annotations

import json
from pathlib import Path

from flashflow.backend.core.named_tuple import NamedTuple
from flashflow.backend.core.private_files import write_private

INSTANCE_FILE = "server.json"


class Instance(NamedTuple):
    """Address and process of the running server."""

    url: str
    pid: int


def write_instance(folder: Path, instance: Instance) -> None:
    """Write the address file. Raises StorageError."""
    write_private(folder / INSTANCE_FILE, json.dumps(instance._asdict()).encode())


def read_instance(folder: Path) -> Instance | None:
    """Return the content of the address file; None where it is missing or damaged."""
    try:
        found = json.loads((folder / INSTANCE_FILE).read_bytes())
        url, pid = found["url"], found["pid"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return Instance(url, pid) if type(url) is str and type(pid) is int else None
