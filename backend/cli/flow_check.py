"""``flashflow check``: validate ``.flow`` files without running them."""

from __future__ import annotations

import json

from flashflow.backend.cli.process import complain, print_line
from flashflow.backend.core.config import Config
from flashflow.backend.flow.language.declarations import Project
from flashflow.backend.flow.language.errors import render_all
from flashflow.backend.flow.language.loader import load
from flashflow.backend.flow.routes import built_in_routes

KINDS = {
    "models": "model",
    "pages": "page",
    "endpoints": "endpoint",
    "jobs": "job",
    "notification_types": "notification type",
    "templates": "template",
    "rules": "rule",
}


def check(config: Config, *, file: list[str], json_output: bool) -> int:
    """Print the errors of the files, or the number of their declarations. Return 1 where there are errors, else 0."""
    project, errors = load(file, built_in_routes)
    if json_output:
        counts = {kind: len(getattr(project, kind)) for kind in KINDS}
        answer = {"valid": not errors, "declarations": counts, "errors": [error.to_json() for error in errors]}
        print_line(json.dumps(answer, ensure_ascii=False))
    elif errors:
        print_line(render_all(errors))
        complain(f"flashflow: {_counted(len(errors), 'error')}.")
    else:
        print_line(f"{_counted(len(project.files), 'file')} without errors: {_declarations(project)}.")
    return 1 if errors else 0


def _declarations(project: Project) -> str:
    found = {noun: len(getattr(project, kind)) for kind, noun in KINDS.items()}
    return ", ".join(_counted(count, noun) for noun, count in found.items() if count) or "no declarations"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
