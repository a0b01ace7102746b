"""How much memory the stages of a run need beyond what the loaded network takes, said before any of them begins.

What can be counted is counted: the tensors of a pass, second moments, the rows that a layer is solved from. `SLACK`
stands for what cannot, such as blocks that the allocator keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from compressor.errors import MachineError
from compressor.refit import rows_wanted
from compressor.refit.footprint import footprint_of
from compressor.refit.paired import HELD_BYTES, Course, held_by_both
from compressor.selection.fisher import STACK_BYTES
from compressor.selection.moments import WIDE, bytes_of_moments
from compressor.selection.prices import CHANGE_BYTES, MOST_IMAGES, SHARES
from compressor.structure.groups import Groups
from compressor.structure.surgery.linear import read_matrix
from compressor.support.batches import Batch, first, sizes_of
from compressor.support.footprint import PASS_BYTES, WORKSPACE
from compressor.support.linalg import precision
from compressor.support.modules import named_tensors

SLACK = 2**27
COPIES = 4
"""Square matrices of its inputs that solving a layer, or ranking its units, has at a time."""
FEWEST_IMAGES = 32
"""A cure never asks for fewer."""


class Forecaster:
    """Forecasts, in bytes, the most memory that each stage of a run takes.

    Args:
        model: The dense network.
        groups: Its groups.
        images: Batches of calibration inputs.
        moments: Whether the selection takes second moments of what layers read.
        refit: Whether layers are solved again.
    """

    def __init__(
        self, model: nn.Module, groups: Groups, images: Sequence[Batch], *, moments: bool, refit: bool
    ) -> None:
        tensors = named_tensors(model)
        self._footprint = footprint_of(model, images[0], [name for name, t in tensors.items() if t.dim() > 1])
        self._layers = {call.weight: call for call in self._footprint.calls if call.sink is not None}
        self._positions = {c.weight: p for c, p in zip(self._footprint.calls, self._footprint.positions, strict=True)}
        self._shapes = {name: read_matrix(call).shape for name, call in self._layers.items()}
        self._weights = sum(tensor.nbytes for tensor in tensors.values())
        self._groups, self._images, self._moments, self._refit = groups, images, moments, refit

    @property
    def images(self) -> int:
        """Number of calibration images."""
        return sum(sizes_of(self._images))

    def stages(self, images: int) -> dict[str, int]:
        """What each stage takes with so many of the images."""
        batches = first(self._images, images)
        found = {"evaluate": self._pass(batches)}
        if self._moments:
            found["select"] = self._selection(batches)
        if self._refit:
            found["refit"] = self._refitting(batches)
        return {stage: int(size) + SLACK for stage, size in found.items()}

    def _pass(self, batches: Sequence[Batch]) -> float:
        peak, batch = self._footprint.peak, max(sizes_of(batches))
        return WORKSPACE * min(batch * peak, max(2 * peak, PASS_BYTES)) + 2 * batch * self._footprint.inputs

    def _selection(self, batches: Sequence[Batch]) -> float:
        """The moments of all consumers, and what is done with them: collecting, ranking or pricing."""
        by_group = [{s.tensor for s in g.slices if s.role == "consumer"} & self._shapes.keys() for g in self._groups]
        consumers = set[str]().union(*by_group)
        moments = sum(bytes_of_moments(*self._shapes[name]) for name in consumers)
        widest = max((inputs for _, _, inputs in (self._shapes[n] for n in consumers) if inputs <= WIDE), default=0)
        ranking = _square(widest)
        cuts = [4 * (1 + len(SHARES)) * sum(self._shapes[name].numel() for name in names) for names in by_group]
        changes = min(sum(cuts), CHANGE_BYTES + max(cuts, default=0))
        gradients = max(self._weights, min(STACK_BYTES, self._weights * MOST_IMAGES // 2))
        pricing = 2 * (changes + gradients)
        return moments + max(self._pass(batches), ranking, pricing)

    def _refitting(self, batches: Sequence[Batch]) -> float:
        """A second network, what images hold while they wait, and the largest layer."""
        course, count = Course(self._footprint, batches, HELD_BYTES), sum(sizes_of(batches))
        waiting = max((course.images(n) * size for n, size in enumerate(held_by_both(self._footprint))), default=0.0)
        walking = WORKSPACE * max(sizes_of(course.batches)) * self._footprint.peak
        solving = max((self._solving(name, count) for name in self._layers), default=0)
        return self._weights + waiting + walking + solving

    def _solving(self, name: str, images: int) -> int:
        """The rows of a layer, those of its inputs twice, and its matrices; a depthwise one reads its outputs alone."""
        groups, outputs, inputs = self._shapes[name]
        read = outputs if self._layers[name].depthwise else inputs
        rows = min(rows_wanted(groups, read, images), int(self._positions[name] * images))
        return 4 * groups * rows * (2 * read + 4 * outputs) + _square(min(read, rows)) + 20 * groups * outputs * inputs


def check_memory(forecaster: Forecaster, available: int | None, processes: int = 1) -> str:
    """Compare what a run needs with what there is.

    Args:
        forecaster: Of the run.
        available: Bytes that can still be had; None where that is not known.
        processes: Processes of the run that share them.

    Returns:
        How much is needed, in words.

    Raises:
        MachineError: it is more than there is.
    """
    available = None if available is None else available // processes
    stage, needed = _most(forecaster, forecaster.images)
    if available is None or needed <= available:
        there = "" if available is None else f", of {_gigabytes(available)} that can be had"
        return f"memory: up to {_gigabytes(needed)} beyond the network ({stage}){there}"
    problem = f"{stage} needs {_gigabytes(needed)} of memory beyond the network, but {_gigabytes(available)} can be had"
    cure = "end other programs, or give the machine or the container more memory"
    fewer = _fitting_images(forecaster, available)
    if fewer:
        cure += f"; or set compress.calibration.images: {fewer}"
    raise MachineError(problem, where="memory", cure=cure)


def _most(forecaster: Forecaster, images: int) -> tuple[str, int]:
    return max(forecaster.stages(images).items(), key=lambda found: found[1])


def _fitting_images(forecaster: Forecaster, available: int) -> int | None:
    """A smaller number of images that memory suffices for, if there is one."""
    images = forecaster.images // 2
    while images >= FEWEST_IMAGES:
        if _most(forecaster, images)[1] <= available:
            return images
        images //= 2
    return None


def _square(size: int) -> int:
    """Square matrices of the inputs of one convolution group, or of the rows where there are fewer of them."""
    return COPIES * size**2 * precision(size).itemsize


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.1f} GB"
