"""The examples of docs/extending.md run, each as a file of its own, as a reader would save it."""

from __future__ import annotations

import re
from inspect import isabstract
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compressor.budget.costs.params import Params
from compressor.budget.costs.tensor_cost import ProductCost
from compressor.budget.targets.base import Target
from compressor.data import calibration_batches, load_data
from compressor.data.base import Source
from compressor.gates.base import Gate
from compressor.recipe import DataSection
from compressor.report.writers.base import Writer
from compressor.selection.base import Calibration
from compressor.selection.checked import rank
from compressor.selection.lookup import find_method
from compressor.selection.methods.magnitude import Magnitude
from compressor.structure import Groups, find_groups
from compressor.support.imports import find_callable
from compressor.tasks import Task, evaluate
from compressor.training.schedules.base import Schedule
from tests.networks import INPUT, build
from tests.report.examples import report

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the method that the page calls my_method.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_method.py").write_text(example("GeometricMedian(Scored)"))
    return tmp_path


def example(words: str) -> str:
    """Return the only example that holds some words."""
    (found,) = [text for text in EXAMPLES if words in text]
    return found


def plugin(folder: Path, name: str, base: type[Any]) -> Any:
    """Return the class of an example, saved as a file and imported from there."""
    (folder / "example.py").write_text(example(f"class {name}("))
    found: Any = find_callable(f"example.py:{name}", where="the page", base=folder)
    assert issubclass(found, base) and not isabstract(found) and found.name
    return found


@pytest.fixture
def network() -> tuple[torch.nn.Module, Groups]:
    model = build("residual")
    return model, find_groups(model, torch.zeros(1, *INPUT))


def test_every_example_is_short_and_is_run_below() -> None:
    assert len(EXAMPLES) == 10
    assert all(len(text.splitlines()) <= 32 for text in EXAMPLES)


def test_the_method_ranks(folder: Path, network: tuple[torch.nn.Module, Groups]) -> None:
    method = find_method("my_method.py:GeometricMedian", where="the page", folder=folder)(power=2.0)
    rankings = rank(method, Calibration(*network, []), where="the page")
    assert set(rankings) == set(network[1].by_name())


def test_the_method_can_be_tested_as_the_page_says(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(example("method = find_method("), names)
    assert len(names["rankings"]["0"].order) == 8


def test_the_gate_starts_open_and_closes(folder: Path) -> None:
    gate = plugin(folder, "Bernoulli", Gate)([5, 3])
    logits = gate.logits(())
    assert logits.shape == (8,) and gate.value(logits).tolist() == [1.0] * 8
    assert gate.probability(logits).min() > 0.98
    gate.start(torch.full((8,), -4.0))
    gate.sample(gate.logits(())).sum().backward()
    assert not gate.value(gate.logits(())).any() and gate.logit.grad.all()


def test_the_cost_falls_with_the_widths(folder: Path, network: tuple[torch.nn.Module, Groups]) -> None:
    model, groups = network
    cost = plugin(folder, "Int8Size", ProductCost)(model, groups)
    assert cost.dense == sum(p.numel() * (1 if p.dim() > 1 else 4) for p in model.parameters())
    assert cost.total({group.name: group.size // 2 for group in groups}) < cost.dense


def test_the_target_is_met_and_judged(folder: Path, network: tuple[torch.nn.Module, Groups]) -> None:
    model, groups = network
    cost = Params(model, groups)
    problem = SimpleNamespace(cost=lambda name: cost, multiple_of=1)
    target = plugin(folder, "ParameterCount", Target)(0.5 * cost.dense)
    widths = target.choose(problem, groups, Magnitude().rank(Calibration(model, groups, []))).widths
    assert cost.total(widths) <= 0.5 * cost.dense
    assert target.measure(report()) == report().compact.params


def test_the_schedule_falls_to_a_hundredth(folder: Path) -> None:
    schedule = plugin(folder, "Exponential", Schedule)()
    assert [schedule.factor(step, 2) for step in range(3)] == pytest.approx([1, 0.1, 0.01])


def test_the_source_gives_images(folder: Path) -> None:
    section = DataSection(source="noise", batch_size=16)
    data = plugin(folder, "Noise", Source)().load(section, INPUT, seed=0)
    images, labels = calibration_batches(data, 32, 16, 0)
    assert images[0][0].shape == (16, *INPUT) and labels is not None
    assert data.labelled and len(next(iter(data.train))) == 2


def test_the_loaders_give_images(folder: Path) -> None:
    (folder / "my_data.py").write_text(example("def load(count"))
    source = f"{folder / 'my_data.py'}:load"
    data = load_data(DataSection(source=source, args={"count": 64}), INPUT, seed=0)
    assert data.labelled and len(data.train) == 2


def test_the_writer_writes_a_line_for_every_group(folder: Path) -> None:
    text = plugin(folder, "GroupsWriter", Writer)().render(report(), ())
    assert len(text.splitlines()) == 1 + len(report().pruned_groups)


def test_the_task_judges_by_its_own_metric(folder: Path) -> None:
    task = plugin(folder, "Value", Task)()
    found = evaluate(torch.nn.Flatten(), [(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 8]))], task)
    assert found.metrics == {"error": pytest.approx(0.5)}
