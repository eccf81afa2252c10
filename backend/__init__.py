"""FlashFlow without its screens: services, their result objects, and the Backend that connects them.

Its names (``exports``, and those of ``.flow`` projects in ``flow.exports``) load at first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flashflow.backend.exports import *
    from flashflow.backend.flow.exports import *


def __getattr__(name: str) -> object:
    # A submodule that is not loaded yet is left to the import system, which asks here first.
    if not name.startswith("__") and find_spec(f"{__name__}.{name}") is None:
        for module in ("exports", "flow.exports"):
            exports = vars(import_module(f"{__name__}.{module}"))
            if name in exports:
                globals()[name] = exports[name]
                return exports[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
