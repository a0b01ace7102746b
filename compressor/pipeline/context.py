"""What all stages of a run share: the recipe, the network, the data, and the way to its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor import __version__
from compressor.data import Data, calibration_batches, hold_out, load_data, other_batches
from compressor.errors import InputError
from compressor.gates.settings import is_gate
from compressor.pipeline.loading import LoadedModel, load_model
from compressor.pipeline.memory_forecast import Forecaster, check_memory
from compressor.pipeline.methods import first_method
from compressor.pipeline.store import Stages
from compressor.recipe import Recipe
from compressor.selection.base import Method
from compressor.support import distributed, hashing
from compressor.support.batches import sizes_of
from compressor.support.files import sha256
from compressor.support.headroom import available_memory
from compressor.support.progress import Journal
from compressor.tasks import Task, find_task
from compressor.training.rate import with_rate
from exporters.errors import ExportError
from exporters.latency_table import LatencyTable
from exporters.onnx import export_onnx
from exporters.operators import device

PARITY_BATCHES = (1, 3, 8)
FEWEST_JUDGES = 64
"""Images from which the agreement of two networks is told."""


class RunContext:
    """What all stages of a run share.

    Args:
        recipe: What to do.
        base: The recipe's directory.
        stages: Of the run directory.
        journal: Where it tells how it goes.
    """

    def __init__(self, recipe: Recipe, base: Path, stages: Stages, journal: Journal) -> None:
        self.recipe, self.base, self.stages, self.journal = recipe, base, stages, journal
        self._memory_is_checked = False

    @cached_property
    def loaded(self) -> LoadedModel:
        return load_model(self.recipe, self.base)

    @cached_property
    def task(self) -> Task:
        """What the network is for."""
        return find_task(self.recipe.task)

    @cached_property
    def method(self) -> Method | None:
        """What ranks units before anything is trained; None where gates start open."""
        return first_method(self.recipe.compress, self.base)

    @cached_property
    def table(self) -> LatencyTable | None:
        """The latency table that the recipe names."""
        return LatencyTable.load(self.recipe.benchmark.table) if self.recipe.benchmark.table else None

    @cached_property
    def data(self) -> Data:
        """The images of the run; some training images are held out, to judge training by them."""
        found = load_data(self.recipe.data, self.recipe.model.input, self.recipe.seed, self.task)
        trains = self.recipe.finetune.epochs > 0 or is_gate(self.recipe.compress)
        return hold_out(found, self.recipe.compress.calibration.images, self.recipe.seed) if trains else found

    @cached_property
    def resolved(self) -> Recipe:
        """The recipe with what its defaults became: for this data, and for the device that it is about.

        Gates take the full learning rate. A rule that nobody gave is not asked where nothing can judge it.
        """
        recipe, accept = self.recipe, self.recipe.accept
        gates = is_gate(recipe.compress) and recipe.finetune.lr is None
        full = recipe.finetune.model_copy(update={"lr": recipe.finetune.rate})
        judged = {
            "accuracy_drop": self.data.validation is not None,
            "speedup": self.table is None or self.table.device == device(),
        }
        off = {name: None for name, can in judged.items() if not can and name not in accept.model_fields_set}
        known = with_rate(recipe.finetune, self.data.train) if self.data.train is not None else recipe.finetune
        finetune = full if gates else known
        return recipe.model_copy(update={"finetune": finetune, "accept": accept.model_copy(update=off)})

    @cached_property
    def calibration(self) -> tuple[Sequence[tuple[Tensor, ...]], Sequence[Any] | None]:
        """Batches of training images, and their targets where there are any."""
        images = self.recipe.compress.calibration.images
        return calibration_batches(self.data, images, self.recipe.data.batch_size, self.recipe.seed)

    @cached_property
    def others(self) -> Sequence[tuple[Tensor, ...]]:
        """Batches of training images to judge by: those of the calibration only where hardly any others are left."""
        images = self.recipe.compress.calibration.images
        others = other_batches(self.data, images, self.recipe.data.batch_size, self.recipe.seed)
        if sum(sizes_of(others)) >= FEWEST_JUDGES:
            return others
        self.journal.say(
            f"fewer than {FEWEST_JUDGES} held-out images: "
            "agreement is measured on the calibration images and is optimistic"
        )
        return self.calibration[0]

    @cached_property
    def real_inputs(self) -> tuple[Tensor, ...]:
        """A batch of 8 training images, or as many as there are."""
        return calibration_batches(self.data, max(PARITY_BATCHES), max(PARITY_BATCHES), self.recipe.seed)[0][0]

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What every stage depends on."""
        files = (name.rpartition(":")[0] for name in (self.recipe.model.builder, self.recipe.data.source))
        root = self.recipe.data.root
        return {
            "versions": {"compressor": __version__, "torch": torch.__version__},
            "task": self.recipe.task,
            "network": hashing.of_network(self.loaded.model),
            "model": self.recipe.model.model_dump(mode="json"),
            "data": self.recipe.data.model_dump(mode="json"),
            "images": [hashing.of_tensors(self.real_inputs), root and hashing.of_files(root)],
            "code": [sha256(Path(file)) for file in files if file.endswith(".py")],
            "named": hashing.of_named(self.recipe.data.args, self._folders(), out=self.stages.run_dir),
            "seed": self.recipe.seed,
        }

    def _folders(self) -> list[Path]:
        """Where a data source may look for the files that it is given by name."""
        source = Path(self.recipe.data.source.rpartition(":")[0])
        root = self.recipe.data.root
        return [Path(), self.base, source.parent, *([root] if root else [])]

    def check_memory(self) -> None:
        """Say how much memory the run needs, the first time that a stage begins which needs a lot.

        Raises:
            MachineError: it is more than can be had.
        """
        if distributed.leads() and not self._memory_is_checked:
            self._memory_is_checked = True
            moments, refit = self.method is not None and self.method.takes_moments, self.recipe.compress.refit
            images = self.calibration[0] if moments or refit else [self.real_inputs]
            forecaster = Forecaster(self.loaded.model, self.loaded.groups, images, moments=moments, refit=refit)
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            self.journal.say(check_memory(forecaster, available_memory(), processes))

    def stage(
        self, name: str, depends_on: Mapping[str, Any], function: Callable[[Path], None], *, together: bool = False
    ) -> Path:
        def seeded(directory: Path) -> None:
            torch.manual_seed(self.recipe.seed)
            function(directory)

        return self.stages.run(name, {**self.origin, **depends_on}, seeded, together=together)

    def export_plain(self, model: nn.Module, path: Path) -> None:
        """Write a network as the recipe says, without notes on where it comes from."""
        self.export(model, path, {})

    def export(self, model: nn.Module, path: Path, metadata: Mapping[str, str], *, dynamic: bool | None = None) -> None:
        settings, cost = self.recipe.export, self.loaded.cost
        dynamic = settings.dynamic_batch if dynamic is None else dynamic
        batch = self.batch(dynamic)
        provenance = {
            "compressor.version": __version__,
            "compressor.checkpoint_sha256": self.loaded.checkpoint_sha256 or "none",
            "compressor.dense_params": str(cost.params),
            "compressor.dense_macs": str(cost.macs),
            "compressor.batch": "dynamic" if dynamic else str(batch),
        }
        inputs = tuple(tensor[:1].repeat(batch, *[1] * (tensor.dim() - 1)) for tensor in self.loaded.inputs)
        try:
            export_onnx(
                model,
                inputs,
                path,
                opset=settings.opset,
                dynamic_batch=dynamic,
                metadata={**provenance, **metadata},
            )
        except ExportError as error:
            place = f"export ({error.where})" if error.where else "export"
            raise InputError(error.problem, where=place, cure=error.cure) from error

    def export_settings(self) -> dict[str, Any]:
        settings = self.recipe.export
        return {"export": settings.model_dump(), "batch": self.batch(settings.dynamic_batch)}

    def batch(self, dynamic: bool) -> int:
        """Batch size of the exported inputs: that of the benchmark where the file is fixed to one."""
        return 2 if dynamic else self.recipe.benchmark.batch_sizes[0]
