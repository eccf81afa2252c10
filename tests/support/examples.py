"""How many random examples a property test tries, by Hypothesis profile: dev 1/5, ci all, nightly ten times."""

from __future__ import annotations

import os

FACTORS = {"dev": 0.2, "ci": 1.0, "nightly": 10.0}


def examples(number: int) -> int:
    """Scale ``number``, the count for CI, to the profile in HYPOTHESIS_PROFILE."""
    return max(1, round(number * FACTORS[os.environ.get("HYPOTHESIS_PROFILE", "ci")]))
