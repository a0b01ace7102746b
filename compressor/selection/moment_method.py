"""Methods that rank the units of a group by second moments of what its consumers read."""

from __future__ import annotations

from abc import abstractmethod

from compressor.errors import InputError
from compressor.selection.base import Calibration, Method, Ranking
from compressor.selection.metrics import METRICS
from compressor.selection.moments import Moments, collect_moments
from compressor.selection.prices import price
from compressor.structure.groups import ChannelGroup


class Imitating(Method):
    """One pass over the images gives the moments; orders and errors are linear algebra; prices are those of `price`.

    Args:
        metric: What an error in an output of a consumer counts: what the `batch_norm` that follows makes of it, or what
            the whole network makes of it, to second order (`kfac`).
    """

    takes_moments = True

    def __init__(self, metric: str = "batch_norm") -> None:
        if metric not in METRICS:
            cure = f"choose one of: {', '.join(METRICS)}"
            raise InputError(f"'metric: {metric}' cannot be", where="compress.options", cure=cure)
        self.metric = METRICS[metric]

    def rank(self, calibration: Calibration) -> dict[str, Ranking]:
        moments = moments_of(calibration)
        for name, scale in self.metric(calibration, moments).items():
            moments[name].scale = scale
        rankings = {}
        for number, group in enumerate(calibration.groups):
            rankings[group.name] = self.rank_group(calibration, group, moments)
            calibration.progress(number + 1, 2 * len(calibration.groups))
        return price(calibration, rankings, moments)

    @abstractmethod
    def rank_group(self, calibration: Calibration, group: ChannelGroup, moments: dict[str, Moments]) -> Ranking:
        """Order of the units, and the error of the consumers' outputs for every width."""


def moments_of(calibration: Calibration) -> dict[str, Moments]:
    """Second moments of what all consumers of all groups read."""
    consumers = [s.tensor for g in calibration.groups for s in g.slices if s.role == "consumer"]
    return collect_moments(calibration.model, consumers, calibration.images, seed=calibration.seed)
