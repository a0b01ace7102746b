"""The rankings of a method, checked: a plug-in from elsewhere that is wrong is told so, and not its plan much later."""

from __future__ import annotations

from itertools import pairwise
from math import isfinite

from compressor.errors import CompressorError, InputError
from compressor.selection.base import Calibration, Method, Ranking
from compressor.structure.groups import ChannelGroup
from compressor.support.distributed import is_loss_of_another


def rank(method: Method, calibration: Calibration, *, where: str) -> dict[str, Ranking]:
    """Rank the groups of `calibration` by a method, and check what it returns.

    Args:
        method: The method.
        calibration: What it looks at.
        where: The recipe's field that names the method.

    Raises:
        InputError: a method from outside of this package raises, or a ranking is not what the contract asks for.
    """
    try:
        rankings = method.rank(calibration)
    except (CompressorError, OSError, MemoryError):
        raise
    except Exception as error:
        if type(method).__module__.startswith("compressor.") or is_loss_of_another(error):
            raise
        problem = f"'{method.name}' raised {type(error).__name__}: {error}"
        raise InputError(problem, where=where, cure="correct the method; --debug shows where it was raised") from error
    for group in calibration.groups:
        fault = _fault(rankings.get(group.name), group)
        if fault:
            problem = f"'{method.name}' ranks the group '{group.name}' of {group.size} units wrongly: {fault}"
            raise InputError(problem, where=where, cure="correct what `rank` returns; docs/extending.md says how")
    return rankings


def _fault(ranking: Ranking | None, group: ChannelGroup) -> str | None:
    """Return what is wrong with the ranking of a group, or None."""
    if ranking is None:
        return "there is no ranking"
    error = ranking.error
    if sorted(ranking.order) != list(range(group.size)):
        return "its order does not name every unit once"
    if tuple(ranking.order) != group.balanced(ranking.order):
        return "its order is not balanced over the blocks; use group.balanced"
    if len(error) != group.size + 1 or not all(map(isfinite, error)):
        return f"its error has {len(error)} numbers, expected {group.size + 1} finite ones"
    if error[-1] != 0 or any(wide > narrow for narrow, wide in pairwise(error)):
        return "its error rises, or does not end at 0"
    return None
