from __future__ import annotations

import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from compressor.report import Inspection, Report, Samples, write_report
from compressor.report.schema import Finetune, Group, Network, Quality, Reach, Rule, Score, Scores
from compressor.report.writers.base import Writer
from compressor.report.writers.console import print_inspection, print_report
from compressor.report.writers.html import HtmlWriter
from compressor.report.writers.junit import JunitWriter
from compressor.report.writers.markdown import MarkdownWriter
from compressor.report.writers.tables import training_line, verdict
from compressor.support import plugins
from tests.report.examples import benchmark, report, samples, with_int8

HOSTILE = "<script>alert(1)</script> & | $x_1$ \\ [bold]x[/bold]"
WRITERS = plugins.discover("compressor.report.writers", Writer)


def rejected() -> Report:
    """Return a report in which one rule failed and one could not be judged."""
    text = "cannot be judged: no labels"
    rules = [
        Rule(name="speedup", required=1.8, measured=1.71, passed=False, text="lower end"),
        Rule(name="accuracy_drop", required=0.01, measured=None, passed=False, text=text),
    ]
    return report(accept=rules)


def hostile() -> Report:
    """Return a report with names that strangers made up."""
    groups = [
        Group(name=HOSTILE, layers=[HOSTILE], size=4, kept=2),
        Group(name=HOSTILE, layers=[HOSTILE], reason=HOSTILE),
    ]
    return report(
        groups=groups, warnings=[HOSTILE], environment={HOSTILE: HOSTILE}, recipe={"model": {"builder": HOSTILE}}
    )


def plain(of: Report) -> Report:
    """Return a report without accuracy, epochs, groups and warnings."""
    states = {name: getattr(of, name).model_copy(update={"accuracy": None}) for name in ("dense", "pruned")}
    compact = of.compact.model_copy(update={"accuracy": None, "agreement": 0.93})
    return of.model_copy(update={**states, "compact": compact, "history": [], "groups": [], "warnings": []})


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    "of",
    [report(), rejected(), hostile(), plain(report()), with_int8()],
    ids=["accepted", "rejected", "hostile", "plain", "int8"],
)
@pytest.mark.parametrize("with_samples", [True, False])
def test_every_writer_renders_every_report(name: str, of: Report, with_samples: bool) -> None:
    assert WRITERS[name]().render(of, samples(of) if with_samples else ()).endswith("\n")


def test_all_files_are_written_and_nothing_else(tmp_path: Path) -> None:
    write_report(report(), tmp_path, samples(report()))
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html", "summary.md", "junit.xml"}
    assert json.loads((tmp_path / "report.json").read_text())["accepted"] is True


def test_a_report_that_cannot_be_rendered_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Writer, report: Report, samples: Samples) -> str:
        raise RuntimeError("broken")

    write_report(report(), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(MarkdownWriter, "render", fail)
    with pytest.raises(RuntimeError):
        write_report(rejected(), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_page_shows_how_every_group_moved() -> None:
    page = HtmlWriter().render(report(), ())
    assert "How the gates moved" in page
    assert all(page.count(group.name) >= 2 for group in report().pruned_groups)
    assert "How the gates moved" not in HtmlWriter().render(report(gates=[]), ())


def test_a_failed_rule_is_a_failed_test_case() -> None:
    suite = ElementTree.fromstring(JunitWriter().render(rejected(), ()))[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    assert suite[0].get("name") == "speedup"
    assert suite[0].find("failure").get("message") == "required ≥ 1.80x, measured 1.71x"  # type: ignore[union-attr]


def test_passed_rules_are_passed_test_cases() -> None:
    suite = ElementTree.fromstring(JunitWriter().render(report(), ()))[0]
    assert (suite.get("tests"), suite.get("failures")) == ("4", "0")
    assert suite.find("testcase/failure") is None


def test_the_summary_names_failed_rules_with_both_values() -> None:
    text = MarkdownWriter().render(rejected(), ())
    failed = "speedup failed (1.71, at least 1.8), accuracy_drop failed (not measured, at most 0.01)"
    assert f"**Not accepted: {failed}: 1.75x as fast (1.71 to 1.79), top-1 87.6 % to 85.4 % (-2.2 points).**" in text
    assert "| speedup | ≥ 1.80x | 1.71x | **no** |" in text
    assert "not measured" in text


def test_speed_and_quality_are_told_in_every_file_whatever_came_out() -> None:
    found = "1.75x as fast (1.71 to 1.79), top-1 87.6 % to 85.4 % (-2.2 points)"
    for of, sentence in (
        (report(), f"Accepted: {found}; all 4 rules hold."),
        (rejected(), f"at most 0.01): {found}."),
    ):
        for name, writer in WRITERS.items():
            assert sentence in writer().render(of, ()) or name == "report.json"


def test_a_slower_file_and_the_agreement_are_named_as_such() -> None:
    slower = report(benchmarks=[benchmark(low=0.42)])
    assert "0.46x as fast (slower; 0.42x to 0.50x), top-1 87.6 %" in verdict(slower)
    assert "1.79), same top-1 as dense 93.0 %; all 4 rules hold." in verdict(plain(report()))


def test_a_target_that_was_missed_is_told_in_the_direction_of_its_kind() -> None:
    rule = Rule(name="target", required=2.0, measured=1.82, passed=False, text="")
    recipe = {"compress": {"target": {"macs": None, "speedup": 2.0}}}
    assert "target failed (1.82, at least 2)" in verdict(report(accept=[rule], recipe=recipe))
    assert "target failed (1.82, at most 2)" in verdict(report(accept=[rule]))


def test_every_file_says_which_weights_fine_tuning_delivers() -> None:
    line = "Fine-tuning delivers epoch 5 of 5: on 1000 held-out training images top-1 79 % before it, 85.5 % after"
    console = Console(file=io.StringIO(), width=200)
    print_report(report(), console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(
        line in text for text in (HtmlWriter().render(report(), ()), MarkdownWriter().render(report(), ()), shown)
    )
    found = report().finetune
    assert found is not None
    kept = found.model_copy(update={"delivered": "before", "problem": "its sampler chooses among all images"})
    said = training_line(kept, report().quality)
    assert said.startswith("Fine-tuning did not help, and is not used: on 1000 training images top-1")
    assert "Fine-tuning" not in MarkdownWriter().render(report(finetune=None), ())


def test_a_third_and_a_fourth_file_are_columns_of_every_table() -> None:
    of, console = with_int8(), Console(file=io.StringIO(), width=200)
    print_report(of, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    summary, page = MarkdownWriter().render(of, ()), HtmlWriter().render(of, samples(of))
    head = ["Dense", "Compact", "Dense int8", "Compact int8", "Change"]
    assert "| " + " | ".join(["", *head]) + " |" in summary and re.search(r"\s+".join(head), shown)
    assert "".join(f"<th>{title}</th>" for title in head) in page
    row = "| ONNX file | 1.1 MB | 590 kB | 280 kB | 151 kB | 7.30x smaller |"
    assert row in summary and "<strong>151 kB</strong>" in page
    assert "3.31 ms | 1.89 ms | 1.66 ms | 0.945 ms | 3.50x as fast (3.40x to 3.60x)" in summary
    assert "| Top-1 | 87.61 % | 85.44 % |  |  | -2.17 points |" in summary
    assert {f"var(--{name})" for name in ("dense", "compact", "third", "fourth")} <= set(
        re.findall(r"var[^;\"]*\)", page)
    )
    assert "3.50x as fast (3.40 to 3.60)" in verdict(of)


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = HtmlWriter().render(report(), samples(report()))
    assert not re.findall(r"""(?:src|href)=["'](?!#)|url\((?!#)|@import|<script|<link""", page)


def test_the_page_draws_every_benchmark_the_gates_and_the_training_curve() -> None:
    page = HtmlWriter().render(report(), samples(report()))
    assert page.count("<svg") == 4


def test_only_groups_that_are_known_in_every_epoch_are_drawn() -> None:
    gates = report().gates
    for movement in (gates[1].expected, gates[2].thresholded):
        movement.popitem()
    assert HtmlWriter().render(report(gates=gates), ()).count("<svg") == 2
    gates[0].expected.clear()
    assert HtmlWriter().render(report(gates=gates), ()).count("<svg") == 1


def test_names_from_strangers_are_escaped_in_the_page() -> None:
    page = HtmlWriter().render(hostile(), samples(hostile()))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_page_shows_dead_units_by_layer() -> None:
    assert "1 of 7 (14.3 %)" in HtmlWriter().render(report(), ())
    assert "never fired" not in HtmlWriter().render(report(activity=[]), ())


def test_the_page_says_why_layers_were_left_alone() -> None:
    assert "padded shortcut" in HtmlWriter().render(report(), ())


def test_the_terminal_shows_verdict_rules_and_names_as_they_are() -> None:
    console = Console(file=io.StringIO(), width=160)
    print_report(hostile(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert HOSTILE in text
    assert "Accepted: 1.75x as fast" in text
    assert "accuracy_drop" in text


def test_an_inspection_shows_groups_and_reasons() -> None:
    console = Console(file=io.StringIO(), width=160)
    reach = Reach(name="conv1", layers=["conv1", "conv2"], size=16, step=1, params=0.25, macs=0.5)
    left = Group(name="fc", layers=["fc"], reason="it makes the outputs")
    smallest = {"macs": 0.125}
    latency = {"layers_ms": {"conv1": 0.75, "fc": 0.25}, "fastest": 3.21}
    inspection = Inspection(params=1000, macs=2000, groups=[reach], untouched=[left], smallest=smallest, **latency)
    print_inspection(inspection, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "25 %" in text
    assert "it makes the outputs" in text
    assert "macs: 0.125" in text
    assert "75 %" in text and "3.21" in text
    assert inspection.to_dict()["groups"][0]["size"] == 16


def test_metrics_of_any_task_are_shown_in_their_units() -> None:
    quality = Quality(metric="error", label="mean error", higher_is_better=False, percent=False)
    networks = {
        name: Network(params=9, macs=9, metrics={"error": error})
        for name, error in {"dense": 3.0, "pruned": 3.9, "compact": 3.25}.items()
    }
    judged = Scores(before=Score(metrics={"error": 4.0}, loss=1.0), epochs=[Score(metrics={"error": 3.5}, loss=0.9)])
    finetune = Finetune(delivered="epoch 1", held_out=judged, images=10)
    text = MarkdownWriter().render(report(**networks, quality=quality, finetune=finetune), ())
    for words in ("Mean error", "3.25", "+0.25", "mean error 3 to 3.25 (+0.25)", "mean error 4 before it, 3.5 after"):
        assert words in text
    assert "top-1" not in text.partition("| Rule")[0].lower()
