"""Training after the cut, as long as that makes the network better."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from compressor.pipeline.context import RunContext
from compressor.pipeline.stages.compact import CompactStage
from compressor.pipeline.stages.quality import assess, quality_of
from compressor.pipeline.store import UNFINISHED
from compressor.report.schema import Finetune as Delivered
from compressor.report.writers.tables import training_line
from compressor.structure import save_compact
from compressor.structure.surgery.silence import keep_silent
from compressor.support.files import read_facts, write_facts, write_json
from compressor.support.footprint import fitting
from compressor.support.progress import Advance, Journal
from compressor.training.best import Best
from compressor.training.history import Activity, Epoch, Progress
from compressor.training.loop import finetune
from compressor.training.revive import revive

HISTORY, JUDGED, ACTIVITY = "history.json", "judged.json", "activity.json"


class Finetune(CompactStage):
    """Trains the cut network, and delivers the best of what it began with and all epochs.

    Args:
        context: What all stages share.
        pruned: Leaves the cut network.
    """

    name = "finetune"
    together = True

    def __init__(self, context: RunContext, pruned: CompactStage) -> None:
        super().__init__(context)
        self.pruned = pruned

    def depends_on(self) -> Mapping[str, Any]:
        images = self.context.recipe.compress.calibration.images
        known = {"pruned": self.pruned.files, "judged": True, "calibration": images}
        return known | self.context.resolved.finetune.model_dump()

    def work(self, directory: Path) -> None:
        context, settings = self.context, self.context.resolved.finetune
        model, plan, train, held_out = self.pruned.load(), self.pruned.plan, context.data.train, context.data.held_out
        assert train is not None and held_out is not None
        keep_silent(model, plan, context.loaded.groups)
        begun = copy.deepcopy(model.state_dict()) if settings.revive else None
        best = Best(model, held_out, begun=begun, seed=context.recipe.seed, task=context.task)
        if settings.revive:
            self._revive(model, directory)
        context.journal.say(f"finetune: learning rate {settings.rate:g}")
        with context.journal.bar("finetune") as advance:
            history = finetune(
                model,
                context.loaded.model,
                train,
                settings,
                task=context.task,
                seed=context.recipe.seed,
                best=best,
                checkpoint=directory / UNFINISHED / "training.pt",
                progress=teller(context.journal, advance, "finetune"),
            )
        context.journal.say(training_line(Delivered.model_validate(best.found()), quality_of(context.task)))
        write_json(directory / JUDGED, best.found())
        write_facts(directory / HISTORY, history)
        save_compact(model, plan, directory)
        assess(context, model, directory, "compact", together=True)

    def _revive(self, model: nn.Module, directory: Path) -> None:
        """Raise the units that hardly ever fire, and write down how many there were."""
        context = self.context
        found = revive(model, fitting(model, context.calibration[0])[0], context.recipe.finetune.revive)
        units, dead, raised = (sum(getattr(entry, name) for entry in found) for name in ("units", "dead", "raised"))
        context.journal.say(f"finetune: {dead} of {units} units are dead; raised the bias of {raised} nearly dead ones")
        write_facts(directory / ACTIVITY, found)

    @property
    def notes(self) -> dict[str, Any]:
        """What the report is to tell about the training, by the names of its keys."""
        kinds: dict[str, tuple[str, Any]] = {
            "history": (HISTORY, list[Epoch]),
            "finetune": (JUDGED, Delivered),
            "activity": (ACTIVITY, list[Activity]),
        }
        paths = {key: (self.directory / name, kind) for key, (name, kind) in kinds.items()}
        return {key: read_facts(path, kind) for key, (path, kind) in paths.items() if path.exists()}


def teller(journal: Journal, advance: Advance, stage: str) -> Callable[[Progress], None]:
    """Return what tells how a training goes: a bar, and a line for every epoch."""

    def tell(now: Progress) -> None:
        metrics = (f", training {name} {value:.3f}" for name, value in now.metrics.items())
        note = f"loss {now.loss:.3f}{''.join(metrics)}"
        values = now.metrics | {"epoch": now.epoch, "loss": now.loss, "lr": now.lr}
        advance(now.step, now.steps, f"epoch {now.epoch}/{now.epochs}, {note}", **values)
        if now.step * now.epochs == now.epoch * now.steps:
            text = f"{stage}: epoch {now.epoch} of {now.epochs}, {note}, {now.seconds:.1f} s"
            values |= {"epochs": now.epochs, "seconds": now.seconds}
            journal.say(text, event="epoch", stage=stage, **values)

    return tell
