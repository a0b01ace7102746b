"""Greedy imitation of the outputs of the whole network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from compressor.selection.methods.greedy_forward import GreedyForward


class ImitateGlobal(GreedyForward):
    """Mix units so that the outputs of the network come closest to those of the dense one.

    The k-th pick gets weight 1 / k and takes it from the others in equal shares, so a unit weighs as much as the number
    of times that it was picked.

    Args:
        screen: How many of the units to which the gradient points are tried in a step.
        exact: All units are tried in so many first steps.
        images: How many images are compared.
    """

    name = "imitate_global"
    summary = "mixes units so that the outputs of the network change least (KL divergence); label-free"
    paper = (
        "Ye et al., Greedy Optimization Provably Wins the Lottery, NeurIPS 2020 (arXiv 2010.15969), global imitation"
    )

    def __init__(self, screen: int = 5, exact: Annotated[int, Field(ge=0)] = 25, images: int = 128) -> None:
        super().__init__(repeat=True, scale="N/n", candidates="taylor", screen=screen, exact=exact, images=images)
