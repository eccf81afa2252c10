"""Load ``.flow`` files and folders into one project."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from flashflow.backend.flow.language.checker import Routes, check
from flashflow.backend.flow.language.declarations import Declaration, Project
from flashflow.backend.flow.language.errors import FlowError, Place
from flashflow.backend.flow.language.read_file import read_file
from flashflow.backend.flow.language.source import MOST_DECLARATIONS, SUFFIX, Source, files_in, read_source, too_many
from flashflow.backend.flow.language.vocabulary import OTHER_FILES

MOST_FILES = 200
MOST_ERRORS = 100
"""Errors shown of one file."""


def load(paths: Iterable[str | Path], routes: Routes | None = None) -> tuple[Project, tuple[FlowError, ...]]:
    """Read files, and the ``*.flow`` of folders. Return the project, which is complete only without errors, and all
    errors in the order of the files. ``routes`` returns the built-in routes, which endpoints are compared with."""
    errors: list[FlowError] = []
    sources: dict[str, Source] = {}
    declarations: list[Declaration] = []
    files = list(_files(paths, errors))
    for path in files[:MOST_FILES]:
        source = read_source(path, str(path))
        if isinstance(source, FlowError):
            errors.append(source)
        else:
            sources[source.file] = source
            declarations += read_file(source, errors)
    if len(files) > MOST_FILES:
        errors.append(_whole(files[MOST_FILES], f"there are more than {MOST_FILES} files", "Join some of them."))
    if len(declarations) > MOST_DECLARATIONS:
        errors.append(too_many(declarations[MOST_DECLARATIONS].place))
        declarations = declarations[:MOST_DECLARATIONS]
    names = [str(path) for path in files[:MOST_FILES]]
    project, between = check(names, declarations, routes, complete=not errors)
    return project, tuple(_in_order([*errors, *between], sources))


def _files(paths: Iterable[str | Path], errors: list[FlowError]) -> Iterator[Path]:
    """Yield each file once; add the errors of paths that name none."""
    seen: set[Path] = set()
    for given in paths:
        path = Path(given)
        for file in _of_folder(path, errors) if path.is_dir() else _of_file(path, errors):
            try:
                resolved = file.resolve()
            except (OSError, RuntimeError, ValueError):  # such as a loop of links; reading it names the reason
                resolved = file
            if resolved not in seen:
                seen.add(resolved)
                yield file


def _of_folder(folder: Path, errors: list[FlowError]) -> Sequence[Path]:
    try:
        found = files_in(folder)
    except OSError as error:
        errors.append(_whole(folder, f"the folder cannot be read: {error.strerror}", "Check its permissions."))
        return ()
    if not found:
        errors.append(_whole(folder, "the folder has no .flow files", "Name a file, or another folder."))
    return found


def _of_file(path: Path, errors: list[FlowError]) -> Sequence[Path]:
    if path.suffix != SUFFIX:
        hint = OTHER_FILES.get(path.suffix, "Name a .flow file, or a folder with some.")
        errors.append(_whole(path, f"“{path.name}” is not a .flow file", hint))
        return ()
    return (path,)


def _whole(path: Path, message: str, hint: str) -> FlowError:
    return FlowError(Place(str(path), 1, 1), message, hint)


def _short(text: str) -> str:
    """Return a message with its quoted words cut to 64 characters."""
    return _LONG_WORD.sub(r"\1…\2", text)


_LONG_WORD = re.compile("([“`][^”`]{64})[^”`]+([”`])")


def _in_order(errors: Iterable[FlowError], sources: dict[str, Source]) -> Iterator[FlowError]:
    """Yield the errors by file and place, with their source lines, up to MOST_ERRORS of one file."""
    by_file: dict[str, dict[tuple[Place, str], FlowError]] = {file: {} for file in sources}
    for error in errors:
        by_file.setdefault(error.place.file, {}).setdefault((error.place, error.message), error)
    for file, found in by_file.items():
        shown = sorted(found.values(), key=lambda error: error.place)
        source = sources.get(file)
        for error in shown[:MOST_ERRORS]:
            line = "" if source is None else source.line(error.place.line)
            yield replace(error, message=_short(error.message), hint=_short(error.hint), source_line=line)
        if len(shown) > MOST_ERRORS:
            place = shown[MOST_ERRORS].place
            yield FlowError(place, f"{len(shown) - MOST_ERRORS} more errors are not shown", "Mend those above first.")
