from __future__ import annotations

import json
from pathlib import Path

import pytest

import exporters
from compressor.budget.search.bracket import Attempt
from compressor.budget.search.speed import Speed
from compressor.errors import InputError
from compressor.report import Report, write_report
from compressor.report.schema import Parity
from compressor.support.files import read_facts, write_facts
from compressor.training.history import Epoch
from tests.report.examples import report


def stored(path: Path, **changes: object) -> Path:
    """Write an example report with some keys changed."""
    file = path / "report.json"
    file.write_text(json.dumps(json.loads(report().to_json()) | changes))
    return file


def test_a_report_survives_writing_and_reading(tmp_path: Path) -> None:
    assert Report.load(stored(tmp_path)) == report()


def test_the_keys_are_those_of_the_contract() -> None:
    written = json.loads(report().to_json())
    keys = "schema environment recipe dense pruned compact groups parity benchmarks accept accepted seconds"
    assert set(keys.split()) <= written.keys()
    assert {"p50_ms", "p90_ms", "p99_ms", "samples"} <= written["benchmarks"][0]["models"]["dense"].keys()
    assert written["benchmarks"][0]["speedup"].keys() == {"median", "low", "high"}


def test_a_report_of_the_version_before_is_read_and_shown(tmp_path: Path) -> None:
    old = Report.load(Path(__file__).with_name("report-0.1.0.json"))
    assert {name: (file.network, file.precision) for name, file in old.files.items()} == {
        "dense": ("dense", "fp32"),
        "compact": ("compact", "fp32"),
    }
    assert old.files["compact"].bytes == old.compact.onnx_bytes
    first = old.benchmarks[0]
    assert first.speedups == {"compact": first.speedup} and old.speedup == pytest.approx(2.0178222433323008)
    assert (first.dense.p50_ms, first.after.p50_ms) == (
        pytest.approx(0.4234, abs=1e-4),
        pytest.approx(0.2097, abs=1e-4),
    )
    assert old.speed is not None and len(old.speed.attempts) == 2
    (tmp_path / "report.json").write_text(old.to_json())
    assert Report.load(tmp_path / "report.json") == old
    write_report(old, tmp_path)


def test_all_that_the_version_before_wrote_is_written_still() -> None:
    def missing(before: object, now: object) -> list[str]:
        """Keys that are gone, and values that have changed."""
        if isinstance(before, dict) and isinstance(now, dict):
            gone = [key for key in before if key not in now]
            return gone + [f"{key}.{name}" for key in before.keys() & now for name in missing(before[key], now[key])]
        if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            return [name for pair in zip(before, now, strict=True) for name in missing(*pair)]
        return [] if before == now else [f"{before} became {now}"]

    file = Path(__file__).with_name("report-0.1.0.json")
    assert missing(json.loads(file.read_text()), json.loads(Report.load(file).to_json())) == []


def test_variants_that_count_must_be_there(tmp_path: Path) -> None:
    written = json.loads(report().to_json())
    assert written["files"]["compact"] == {"network": "compact", "bytes": 590233, "precision": "fp32"}
    assert written["benchmarks"][0]["speedups"]["compact"] == written["benchmarks"][0]["speedup"]
    files = {"compact": written["files"]["compact"]}
    with pytest.raises(InputError, match="there is no file dense"):
        Report.load(stored(tmp_path, files=files))
    models = {"a": written["benchmarks"][0]["models"]["dense"], "dense": written["benchmarks"][0]["models"]["dense"]}
    with pytest.raises(InputError, match="there is no latency of compact"):
        Report.load(stored(tmp_path, benchmarks=[written["benchmarks"][0] | {"models": models}]))


def test_one_failed_rule_rejects() -> None:
    failed = report().accept[0].model_copy(update={"passed": False})
    assert report().accepted
    assert not report(accept=[*report().accept, failed]).accepted


def test_a_report_without_rules_is_not_accepted() -> None:
    assert not report(accept=[]).accepted


def test_the_stored_verdict_is_not_believed(tmp_path: Path) -> None:
    assert not Report.load(stored(tmp_path, accept=[], accepted=True)).accepted


def test_an_infinite_difference_survives_as_valid_json(tmp_path: Path) -> None:
    text = report(parity=Parity(max_abs=float("inf"), max_rel=float("inf"))).to_json()
    assert json.loads(text, parse_constant=pytest.fail)["parity"]["max_rel"] == "Infinity"
    assert Report.model_validate_json(text).parity.max_rel == float("inf")


def test_keys_of_a_newer_version_are_skipped(tmp_path: Path) -> None:
    assert Report.load(stored(tmp_path, peak_memory=3)) == report()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', "\xff"])
def test_what_is_no_report_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match="report.json: not a report"):
        Report.load(file)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no readable report"):
        Report.load(tmp_path / "report.json")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="schema 99"):
        Report.load(stored(tmp_path, schema=99))


@pytest.mark.parametrize("recipe", [{}, {"model": [], "compress": []}, {"compress": {"target": [1]}}])
def test_a_recipe_of_another_form_has_no_builder_and_no_target(recipe: dict[str, object]) -> None:
    assert (report(recipe=recipe).builder, report(recipe=recipe).target) == ("", {})


def test_what_stages_tell_is_in_the_report_as_it_is(tmp_path: Path) -> None:
    widths = {"conv1": 8}
    attempts = [Attempt(0.5, 1.25, exporters.Speedup(2.1, 2.0, 2.2), widths)]
    speed = Speed(target=2.0, reached=True, measured=True, attempts=attempts)
    epoch = Epoch(1, float("inf"), 0.5, lr=0.1, seconds=2.0, images_per_second=500.0)
    write_facts(tmp_path / "speed.json", speed)
    write_facts(tmp_path / "history.json", [epoch])
    assert read_facts(tmp_path / "speed.json", Speed) == speed
    assert read_facts(tmp_path / "history.json", list[Epoch]) == [epoch]
    written = json.loads(report(speed=speed, history=[epoch]).to_json(), parse_constant=pytest.fail)
    assert written["speed"]["attempts"][0]["widths"] == widths and written["history"][0]["loss"] == "Infinity"
    assert Report.model_validate(written).history == [epoch]


@pytest.mark.parametrize("key", ["epoch", "units"])
def test_numbers_out_of_their_range_are_refused(tmp_path: Path, key: str) -> None:
    written = json.loads(report().to_json())
    for name in ("history", "activity"):
        written[name][0] |= {key: -1} if key in written[name][0] else {}
    with pytest.raises(InputError, match=rf"not a report: \w+\.0\.{key}"):
        Report.load(stored(tmp_path, history=written["history"], activity=written["activity"]))
