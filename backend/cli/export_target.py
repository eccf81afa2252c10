"""Target of an export: standard output, a file that appears when complete, or a pipe or device."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flashflow.backend.core.errors import FlashFlowError


@contextmanager
def writing_to(name: str) -> Iterator[BinaryIO]:
    """Open the target of an export. Raises FlashFlowError where it cannot be written."""
    try:
        if name == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif _is_plain(name):
            # The target of a link, so that the link stays one.
            with _replacing(Path(os.path.realpath(name))) as out:
                yield out
        else:
            with open(name, "wb") as out:
                yield out
    except OSError as error:
        if name == "-" and isinstance(error, BrokenPipeError):
            raise  # the reader has closed the pipe
        place = "Standard output" if name == "-" else name
        raise FlashFlowError(f"{place} cannot be written: {error.strerror or error}.") from error


def _is_plain(name: str) -> bool:
    """Whether ``name`` is a regular file or does not exist. A pipe, a device or an open descriptor (``/dev/stdout``)
    must be written directly: a new file in its place would reach no reader."""
    place = os.path.abspath(name)
    if place in {"/dev/stdout", "/dev/stderr"} or place.startswith(("/dev/fd/", "/proc/")):
        return False
    try:
        return stat.S_ISREG(os.stat(name).st_mode)
    except FileNotFoundError:
        return True


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file of mode 0600 and rename it to ``path`` when complete."""
    handle, half = tempfile.mkstemp(suffix=".part", prefix=f".{path.stem[:32]}.", dir=path.parent)
    try:
        with open(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(handle)
        os.replace(half, path)
    except BaseException:
        Path(half).unlink(missing_ok=True)
        raise
