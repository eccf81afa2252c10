"""The Prometheus text format, version 0.0.4: metric families with help, type and samples.

[https://prometheus.io/docs/instrumenting/exposition_formats/]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from flashflow.backend.core.named_tuple import NamedTuple

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "flashflow_"
NO_LABELS: Mapping[str, str] = {}


class Sample(NamedTuple):
    """One value; ``suffix`` follows the family's name (histograms: ``_bucket``, ``_sum``, ``_count``)."""

    value: float
    labels: Mapping[str, str] = NO_LABELS
    suffix: str = ""


class Family(NamedTuple):
    """The samples under one name; PREFIX is added to it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


def counter(name: str, help_: str, *samples: Sample) -> Family:
    """Return a counter: grows until a restart; ``name`` ends in ``_total``."""
    return Family(name, "counter", help_, samples)


def gauge(name: str, help_: str, *samples: Sample) -> Family:
    """Return a gauge: goes up and down."""
    return Family(name, "gauge", help_, samples)


def text(families: Iterable[Family]) -> bytes:
    """Return ``families`` in the text format."""
    lines: list[str] = []
    for name, kind, help_, samples in families:
        lines.append(f"# HELP {PREFIX}{name} {_escaped(help_)}\n# TYPE {PREFIX}{name} {kind}\n")
        for value, labels, suffix in samples:
            pairs = ",".join(f'{label}="{_quotable(word)}"' for label, word in labels.items())
            lines.append(f"{PREFIX}{name}{suffix}{f'{{{pairs}}}' if pairs else ''} {value!r}\n")
    return "".join(lines).encode()


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n")


def _quotable(words: str) -> str:
    return _escaped(words).replace('"', r"\"")
