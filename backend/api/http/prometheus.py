"""The text format that Prometheus reads, version 0.0.4: a handful of families, each with its help, type and samples.

[https://prometheus.io/docs/instrumenting/exposition_formats/]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "flashflow_"
NO_LABELS: Mapping[str, str] = {}


class Sample(NamedTuple):
    """One number; ``suffix`` is what a histogram's samples have behind its name."""

    value: float
    labels: Mapping[str, str] = NO_LABELS
    suffix: str = ""


class Family(NamedTuple):
    """What is said under one name, which gets PREFIX."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


def counter(name: str, help_: str, *samples: Sample) -> Family:
    """What only ever grows, until a restart; ``name`` ends in ``_total``."""
    return Family(name, "counter", help_, samples)


def gauge(name: str, help_: str, *samples: Sample) -> Family:
    """What goes up and down."""
    return Family(name, "gauge", help_, samples)


def text(families: Iterable[Family]) -> bytes:
    """``families`` as lines."""
    lines: list[str] = []
    for name, kind, help_, samples in families:
        lines.append(f"# HELP {PREFIX}{name} {_escaped(help_)}\n# TYPE {PREFIX}{name} {kind}\n")
        for value, labels, suffix in samples:
            said = ",".join(f'{label}="{_quotable(word)}"' for label, word in labels.items())
            lines.append(f"{PREFIX}{name}{suffix}{f'{{{said}}}' if said else ''} {value!r}\n")
    return "".join(lines).encode()


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n")


def _quotable(words: str) -> str:
    return _escaped(words).replace('"', r"\"")
