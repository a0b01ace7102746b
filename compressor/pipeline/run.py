"""The stages of one run, in their order."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import platform
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
from torch import nn

from compressor.budget.costs.measure import measure_cost
from compressor.budget.targets.timed import CANDIDATE_SECONDS, settings_of
from compressor.errors import InputError, MachineError
from compressor.gates.settings import EPOCHS, is_gate, read_gate
from compressor.gates.trainer import train_gates
from compressor.pipeline.checks import check_data, check_recipe, check_target
from compressor.pipeline.context import PARITY_BATCHES, Job
from compressor.pipeline.facts import facts_of
from compressor.pipeline.forecast import describe, forecast
from compressor.pipeline.planning import Planner
from compressor.pipeline.results import (
    ACTIVITY,
    BATCH,
    BENCHMARKS,
    COMPACT,
    DENSE,
    GATES,
    HISTORY,
    JUDGED,
    PARITY,
    PLAN,
    QUALITY,
    RANKINGS,
    REFITS,
    WEIGHTS,
    Finished,
    make_report,
    network,
    publish,
    quality_of,
    samples_name,
)
from compressor.pipeline.stages.select import read_rankings, write_rankings
from compressor.pipeline.store import UNFINISHED, Rehearsal, Stages
from compressor.recipe import Recipe, dump_recipe
from compressor.refit import Refit, refit, summary
from compressor.report import Report
from compressor.report.schema import Finetune
from compressor.report.writers.tables import training_line
from compressor.selection.base import Calibration
from compressor.structure import Plan, load_compact, save_compact, shrink
from compressor.structure.surgery.silence import keep_silent
from compressor.support import distributed
from compressor.support.files import read_json, write_json
from compressor.support.footprint import fitting
from compressor.support.progress import Advance, Journal
from compressor.tasks import agreement, as_keys, evaluate
from compressor.training.best import Best
from compressor.training.history import Progress
from compressor.training.length import count_batches
from compressor.training.loop import finetune
from compressor.training.revive import revive
from exporters.benchmark import benchmark
from exporters.cores import doubt, usable_cores
from exporters.errors import ExportError, ProviderUnavailableError
from exporters.parity import check_parity
from exporters.runtime import check_threads, create_session


class Run(Job):
    """One run of a recipe.

    Args:
        recipe: What to do.
        base: The recipe's directory.
        stages: Of the run directory.
        journal: Where the run tells how it goes.
        baseline: An earlier report to judge by.
    """

    def __init__(
        self, recipe: Recipe, base: Path, stages: Stages, journal: Journal, baseline: Report | None = None
    ) -> None:
        super().__init__(recipe, base, stages, journal)
        self.planner, self.baseline = Planner(self), baseline

    def execute(self) -> Report:
        """Do every stage that is not done yet, judge, and write the results."""
        distributed.lead(self.check)
        distributed.lead(self.forecast)
        done = self.walk()
        return distributed.lead(lambda: self.report(done))

    def walk(self) -> Finished:
        """Do every stage that is not done yet."""
        dense = self.export_dense()
        reference = self.evaluate_dense()
        selected = self.learn(dense) if is_gate(self.recipe.compress) else self.select()
        plan = self.planner.plan(selected, dense)
        pruned = self.shrink(plan, selected)
        compact = self.finetune(pruned)
        exported = self.export_compact(compact)
        measured = self.benchmark(dense, compact, exported)
        return Finished(dense, reference, selected, plan, pruned, compact, exported, measured)

    def forecast(self) -> None:
        """Tell how long the stages that are not done yet will take."""
        rehearsal, stages = copy.copy(self), Rehearsal(self.stages)
        rehearsal.stages, rehearsal.planner, rehearsal.origin = stages, Planner(rehearsal), self.origin
        rehearsal.walk()
        expected = forecast(facts_of(self)) if any(stages.missing.values()) else {}
        seconds = {name: round(missing * expected.get(name, 0.0), 1) for name, missing in stages.missing.items()}
        self.journal.say(describe(seconds), event="forecast", seconds=seconds)

    def report(self, done: Finished) -> Report:
        """Judge what the stages found, and write the results."""
        report = make_report(self.resolved, self.subject, done, self.stages.seconds, self.baseline)
        publish(report, self.resolved, done, self.stages.run_dir)
        file = self.stages.run_dir / "report.html"
        self.journal.say(f"wrote {file}", event="report", path=str(file), accepted=report.accepted)
        return report

    def check(self) -> None:
        """Find the faults of recipe, network and data before any long work."""
        self.journal.say("checking recipe, network and data")
        if self.subject.entry:
            self.journal.say(f"the weights are those of '{self.subject.entry}' in {self.recipe.model.checkpoint}")
        check_recipe(self.recipe)
        check_target(self.subject, self.recipe.compress)
        if self.table:
            self.journal.say(f"latencies are those of {self.recipe.benchmark.table}")
        self._check_threads(self.recipe.benchmark.threads)
        check_data(self.recipe, self.method, self.data)
        if self.recipe.finetune.epochs and self.data.train is not None:
            count_batches(self.data.train)
        shape, expected = list(self.real_inputs[0].shape[1:]), list(self.recipe.model.input)
        if shape != expected:
            cure = "let the data give inputs of that shape, or correct model.input"
            raise InputError(f"inputs are of shape {shape}, model.input is {expected}", where="data.source", cure=cure)

    def _check_threads(self, threads: int) -> None:
        try:
            check_threads(threads)
        except ExportError as error:
            raise InputError(error.problem, where="benchmark.threads", cure=error.cure) from error
        if problem := doubt(threads, usable_cores()):
            self.journal.say(f"benchmark.threads: {problem}")

    def export_dense(self) -> Path:
        """Write dense.onnx, and open it where it will be measured."""

        def work(directory: Path) -> None:
            self.export(self.subject.model, directory / DENSE, {})

        done = self.stage("export-dense", self.export_settings(), work)
        try:
            if (done / DENSE).exists():  # not so in a rehearsal
                create_session(done / DENSE, provider=self.recipe.benchmark.provider)
        except ProviderUnavailableError as error:
            raise MachineError(error.problem, where="benchmark.provider", cure=error.cure) from error
        return done

    def evaluate_dense(self) -> Path:
        """Measure what is to be kept."""

        def work(directory: Path) -> None:
            self.check_memory()
            self._assess(self.subject.model, directory, "dense", together=True)

        return self.stage("evaluate-dense", {}, work, together=True)

    def select(self) -> Path:
        """Rank the units of every group."""
        section, method = self.recipe.compress, self.method
        assert method is not None

        def work(directory: Path) -> None:
            self.check_memory()
            images, labels = self.calibration
            with self.journal.bar(f"select ({method.name})") as advance:
                subject, seed = self.subject, self.recipe.seed
                rankings = method.rank(
                    Calibration(subject.model, subject.groups, images, labels, seed, advance, self.task)
                )
            write_rankings(directory, rankings)

        options = {} if is_gate(section) else section.options
        depends_on = section.model_dump(mode="json", include={"calibration", "keep", "inexact"})
        return self.stage("select", depends_on | {"method": method.name, "options": options}, work, together=True)

    def learn(self, dense: Path) -> Path:
        """Rank the units of every group by gates that learn while the network trains."""
        section, (make, options) = self.recipe.compress, read_gate(self.recipe.compress)
        first = self.select() if self.method else None
        settings = self.resolved.finetune.model_copy(update={"epochs": section.epochs or EPOCHS})

        def work(directory: Path) -> None:
            with self.journal.bar(f"gates ({section.method})") as advance:
                learnt = train_gates(
                    self.subject.model,
                    self.subject.groups,
                    self.data.train or (),
                    make,
                    options,
                    self.planner.budget(dense),
                    settings,
                    first=read_rankings(first) if first else None,
                    task=self.task,
                    seed=self.recipe.seed,
                    checkpoint=directory / UNFINISHED / "training.pt",
                    progress=self._teller(advance, "gates"),
                )
            write_rankings(directory, learnt.rankings)
            write_json(directory / GATES, [dataclasses.asdict(movement) for movement in learnt.movements])
            save_compact(learnt.model, Plan(()), directory)

        depends_on = section.model_dump(mode="json", exclude={"refit", "calibration"})
        before: dict[str, Any] = {"first": first and first / RANKINGS}
        before |= {"training": settings.model_dump(), "measured": self.planner.measured(dense)}
        return self.stage("gates", depends_on | before, work, together=True)

    def shrink(self, planned: Path, selected: Path) -> Path:
        """Cut the network, with its consumers solved again where the recipe says so."""
        section = self.recipe.compress

        def work(directory: Path) -> None:
            self.check_memory()
            plan, model, refits = Plan.load(planned / PLAN), self.subject.model, list[Refit]()
            if section.refit:
                model, refits = self._refit(plan)
            small = shrink(model, plan)
            if is_gate(section):
                trained = shrink(load_compact(selected, self.subject.model), plan)
                if not refits or self._is_nearer(trained, small):
                    small, refits = trained, []
            if refits:
                write_json(directory / REFITS, [dataclasses.asdict(entry) for entry in refits])
            save_compact(small, plan, directory)
            self._assess(small, directory, "pruned")

        depends_on: dict[str, Any] = {
            "plan": planned / PLAN,
            "trained": is_gate(section) and selected / WEIGHTS,
            "refit": section.refit and section.refit_mixing,
        } | section.model_dump(mode="json", include={"calibration", "keep", "inexact"})
        return self.stage("shrink", depends_on, work)

    def finetune(self, pruned: Path) -> Path:
        """Train the cut network, as long as that makes it better; without epochs it is what the cut left."""
        settings = self.resolved.finetune
        if not settings.epochs:
            return pruned

        def work(directory: Path) -> None:
            model, train, held_out = load_compact(pruned, self.subject.model), self.data.train, self.data.held_out
            assert train is not None and held_out is not None
            keep_silent(model, Plan.load(pruned / PLAN), self.subject.groups)
            begun = copy.deepcopy(model.state_dict()) if settings.revive else None
            best = Best(model, held_out, begun=begun, seed=self.recipe.seed, task=self.task)
            if settings.revive:
                self._revive(model, directory)
            self.journal.say(f"finetune: learning rate {settings.rate:g}")
            with self.journal.bar("finetune") as advance:
                history = finetune(
                    model,
                    self.subject.model,
                    train,
                    settings,
                    task=self.task,
                    seed=self.recipe.seed,
                    best=best,
                    checkpoint=directory / UNFINISHED / "training.pt",
                    progress=self._teller(advance, "finetune"),
                )
            self.journal.say(training_line(Finetune.model_validate(best.found()), quality_of(self.task)))
            write_json(directory / JUDGED, best.found())
            write_json(directory / HISTORY, [epoch.to_dict() for epoch in history])
            save_compact(model, Plan.load(pruned / PLAN), directory)
            self._assess(model, directory, "compact", together=True)

        depends_on = {"pruned": network(pruned), "judged": True, "calibration": self.recipe.compress.calibration.images}
        return self.stage("finetune", depends_on | settings.model_dump(), work, together=True)

    def _revive(self, model: nn.Module, directory: Path) -> None:
        """Raise the units that hardly ever fire, and write down how many there were."""
        found = revive(model, fitting(model, self.calibration[0])[0], self.recipe.finetune.revive)
        units, dead, raised = (sum(getattr(entry, name) for entry in found) for name in ("units", "dead", "raised"))
        self.journal.say(f"finetune: {dead} of {units} units never fire; {raised} that hardly fire are raised")
        write_json(directory / ACTIVITY, [dataclasses.asdict(entry) for entry in found])

    def export_compact(self, compact: Path) -> Path:
        """Write compact.onnx, and compare it with the module on real inputs."""
        recipe_hash = hashlib.sha256(dump_recipe(self.resolved).encode()).hexdigest()

        def work(directory: Path) -> None:
            model, path = load_compact(compact, self.subject.model), directory / COMPACT
            cost = read_json(compact / QUALITY)
            metadata = {f"compressor.compact_{name}": str(cost[name]) for name in ("params", "macs")}
            self.export(model, path, metadata | {"compressor.recipe_sha256": recipe_hash})
            parity = check_parity(model, path, self.real_inputs, batch_sizes=PARITY_BATCHES)
            write_json(directory / PARITY, {"max_abs": parity.max_abs, "max_rel": parity.max_rel})

        depends_on = {"compact": network(compact), "recipe": recipe_hash}
        return self.stage("export-compact", depends_on | self.export_settings(), work)

    def benchmark(self, dense: Path, compact: Path, exported: Path) -> Path:
        """Measure both files side by side, at every batch size."""
        settings, single_calls = self.recipe.benchmark, self.recipe.accept.p99_ms is not None

        def work(directory: Path) -> None:
            results = []
            for batch in settings.batch_sizes:
                self.journal.say(f"benchmark: {settings.provider}, threads {settings.threads}, batch {batch}")
                result = benchmark(
                    [dense / DENSE, exported / COMPACT],
                    provider=settings.provider,
                    threads=settings.threads,
                    batch=batch,
                    min_seconds=settings.seconds,
                    seed=self.recipe.seed,
                    single_calls=single_calls,
                )
                result.save_samples(directory / samples_name(batch))
                results.append(result.to_dict())
            write_json(directory / BENCHMARKS, results)
            write_json(directory / BATCH, self._batch_choice(compact, exported))

        # A file's metadata does not change its latency: the weights count, not the stage that exports them.
        depends_on = {
            "compact": network(compact),
            "benchmark": settings.model_dump(mode="json", exclude={"table"}),
            "single_calls": single_calls,
        } | self.export_settings()
        machine = {"node": platform.node(), "onnxruntime": onnxruntime.__version__}
        return self.stage("benchmark", depends_on | machine, work)

    def _refit(self, plan: Plan) -> tuple[nn.Module, list[Refit]]:
        model, images, groups = self.subject.model, self.calibration[0], self.subject.groups
        mixing, seed = self.recipe.compress.refit_mixing, self.recipe.seed
        if is_gate(self.recipe.compress):  # its own weights may be the better ones, and their branches add something
            groups = dataclasses.replace(groups, shifts={})
        with self.journal.bar("refit") as advance:
            fitted, done = refit(model, plan, images, groups=groups, mixing=mixing, seed=seed, progress=advance)
        self.journal.say(summary(done))
        return fitted, done

    def _is_nearer(self, trained: nn.Module, refitted: nn.Module) -> bool:
        """Whether what trained with the gates is nearer to the dense network than what was solved again after them."""
        dense, others = self.subject.model, self.others
        ours, theirs = (agreement(network, dense, others, self.task) for network in (trained, refitted))
        chosen = "trained with the gates" if ours >= theirs else "solved again"
        self.journal.say(
            f"{self.task.agreement_label}: trained {ours:.1%}, solved again {theirs:.1%}; the weights {chosen} stay"
        )
        return ours >= theirs

    def _assess(self, model: nn.Module, directory: Path, name: str, *, together: bool = False) -> None:
        """Write down cost and metrics; without labels, the agreement with the dense network.

        With `together`, all processes of the run do this, each for its part of the images.
        """
        cost = measure_cost(model, self.subject.inputs)
        found: dict[str, Any] = {"params": cost.params, "macs": cost.macs}
        if self.data.validation is None:
            found["agreement"] = agreement(model, self.subject.model, self.others, self.task)
        else:
            with self.journal.bar(f"evaluate ({name})") as advance:
                quality = evaluate(model, self.data.validation, self.task, progress=advance, together=together)
            found |= as_keys(quality.metrics)
            main = self.task.metrics()[self.task.main]
            self.journal.say(f"{name}: {main.label} {main.show(quality.main)}")
        write_json(directory / QUALITY, found)

    def _teller(self, advance: Advance, stage: str) -> Callable[[Progress], None]:
        def tell(now: Progress) -> None:
            metrics = (f", training {name} {value:.3f}" for name, value in now.metrics.items())
            note = f"loss {now.loss:.3f}{''.join(metrics)}"
            values = now.metrics | {"epoch": now.epoch, "loss": now.loss, "lr": now.lr}
            advance(now.step, now.steps, f"epoch {now.epoch}/{now.epochs}, {note}", **values)
            if now.step * now.epochs == now.epoch * now.steps:
                text = f"{stage}: epoch {now.epoch} of {now.epochs}, {note}, {now.seconds:.1f} s"
                values |= {"epochs": now.epochs, "seconds": now.seconds}
                self.journal.say(text, event="epoch", stage=stage, **values)

        return tell

    def _batch_choice(self, compact: Path, exported: Path) -> dict[str, Any]:
        """Whether the file takes any batch, and how fast the other kind would be at the first batch size."""
        settings, dynamic = self.recipe.benchmark, self.recipe.export.dynamic_batch
        with TemporaryDirectory() as directory:
            other = Path(directory, "other.onnx")
            self.export(load_compact(compact, self.subject.model), other, {}, dynamic=not dynamic)
            seconds = min(CANDIDATE_SECONDS, settings.seconds)
            files = [exported / COMPACT, other]
            found = benchmark(files, **settings_of(settings), min_seconds=seconds, memory=False).speedup
        assert found is not None
        return {"dynamic": dynamic, "other": dataclasses.asdict(found)}
