"""Did you mean …?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], number: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the names that are most like one that is not known, the best first.

    Args:
        name: What somebody wrote.
        known: What it could have been.
        number: Most names to return.
        cutoff: Least likeness, 0 to 1.
    """
    return difflib.get_close_matches(name, list(known), n=number, cutoff=cutoff)
