"""The better of local and global greedy imitation, group by group."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.methods.imitate_global import ImitateGlobal
from compressor.selection.methods.imitate_simplex import ImitateSimplex


class ImitateBoth(Method):
    """Rank every group by local and by global imitation; keep the order that costs less at the same width.

    Args:
        width: Share of the units at which the two are compared.
        images: How many images global imitation looks at.
    """

    name = "imitate_both"
    summary = "the better of imitate_simplex and imitate_global for every group; label-free"
    takes_moments = True
    paper = "Ye et al., Greedy Optimization Provably Wins the Lottery, NeurIPS 2020 (arXiv 2010.15969)"

    def __init__(self, width: Annotated[float, Field(gt=0, le=1)] = 0.5, images: int = 128) -> None:
        self.width, self.images = width, images

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        quiet = replace(calibration, progress=lambda done, total: None)
        local = ImitateSimplex().rank(quiet)
        whole = ImitateGlobal(images=self.images).rank(calibration)
        best = {}
        for group in calibration.groups:
            width = round(group.size * self.width)
            best[group.name] = min(local[group.name], whole[group.name], key=lambda ranking: ranking.error[width])
        return best
