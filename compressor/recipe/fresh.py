"""Which finished stages are done again: `--fresh` for all of them, `--fresh plan` for those from `plan` on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compressor.support import plugins

ORDER = (
    ("export-dense", "evaluate-dense"),
    ("select", "profile"),
    ("gates",),
    ("plan",),
    ("shrink",),
    ("finetune",),
    ("export-compact",),
    ("benchmark",),
)
"""The stages of a run: those of one entry do not depend on each other, but on stages of earlier entries."""
STAGES = tuple(name for names in ORDER for name in names)
OPTION = "--fresh"


def repeated(fresh: bool | str) -> frozenset[str]:
    """Return the stages that are done again: all, none, or those from a named one on.

    Raises:
        InputError: there is no such stage.
    """
    if isinstance(fresh, bool):
        return frozenset(STAGES if fresh else ())
    if fresh not in STAGES:
        raise plugins.unknown(fresh, STAGES, where="fresh")
    number = next(number for number, names in enumerate(ORDER) if fresh in names)
    return frozenset([fresh, *(name for names in ORDER[number + 1 :] for name in names)])


def join(args: Sequence[str]) -> list[str]:
    """Write the option with its value as one argument, `--fresh=plan`, and as `--fresh=` where it stands alone."""
    end = args.index("--") if "--" in args else len(args)
    joined: list[str] = []
    for word in args[:end]:
        if joined and joined[-1] == f"{OPTION}=" and _names_a_stage(word):
            joined[-1] += word
        else:
            joined.append(f"{OPTION}=" if word == OPTION else word)
    return [*joined, *args[end:]]


def _names_a_stage(word: str) -> bool:
    """Whether a word after the option is its value, rightly spelt or not, rather than an option or a recipe."""
    return word in STAGES or not (word.startswith("-") or Path(word).suffix or Path(word).exists())
