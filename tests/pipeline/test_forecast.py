"""How long a run will take, from facts that are made up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compressor.pipeline.forecast import Facts, describe, forecast
from compressor.recipe.fresh import STAGES

FACTS = Facts(
    forward=0.01,
    training_forward=0.01,
    load=0.001,
    waiting=1.0,
    layers=20,
    units=(16, 32),
    calibration=1000,
    validation=500,
    trained=2000,
    gated=0,
    method="imitation",
    exports=0,
    refits=0,
    share=0.5,
    refit=True,
    distill=True,
    measured=(5.0,),
    candidate=2.0,
)


def test_every_stage_has_a_forecast() -> None:
    assert forecast(FACTS).keys() == set(STAGES)


def test_passes_over_images_are_counted() -> None:
    seconds = forecast(FACTS)
    assert seconds["evaluate-dense"] == pytest.approx(500 * 0.011)
    assert seconds["finetune"] == pytest.approx(2000 * (0.001 + 0.01 * (3 * 0.5 + 1)) + 500 * 0.01 * 0.5)
    assert seconds["gates"] == 0


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"calibration": 2000}, ["select", "shrink"]),
        ({"trained": 4000}, ["finetune"]),
        ({"training_forward": 0.1}, ["finetune"]),
        ({"gated": 4000}, ["gates"]),
        ({"exports": 8}, ["plan"]),
        ({"refits": 8}, ["plan"]),
        ({"method": "greedy_forward"}, ["select"]),
        ({"measured": (5.0, 5.0)}, ["benchmark"]),
        ({"units": (16, 32, 64)}, ["profile"]),
        ({"waiting": 3.0}, ["export-dense", "profile", "plan", "export-compact", "benchmark"]),
    ],
    ids=str,
)
def test_more_of_something_makes_those_stages_longer_that_do_it(change: dict[str, object], stages: list[str]) -> None:
    before, after = forecast(FACTS), forecast(replace(FACTS, **change))  # type: ignore[arg-type]
    assert {name for name in before if after[name] > before[name]} == set(stages)
    assert all(after[name] >= before[name] for name in before)


def test_what_is_cheaper_is_forecast_as_cheaper() -> None:
    before = forecast(FACTS)
    assert forecast(replace(FACTS, refit=False))["shrink"] < before["shrink"]
    assert forecast(replace(FACTS, method="magnitude"))["select"] < before["select"]
    assert forecast(replace(FACTS, distill=False))["finetune"] < before["finetune"]


def test_the_line_names_what_is_left_in_units_for_people() -> None:
    assert describe({"select": 0.0, "plan": 41.7, "finetune": 300.0, "benchmark": 0.2}) == (
        "forecast: about 6 min in all (plan 42 s, finetune 5 min, benchmark 1 s)"
    )
    assert describe({"finetune": 7200.0}) == "forecast: about 2.0 h in all (finetune 2.0 h)"
    assert describe({"select": 0.0}) == "forecast: nothing is left to do but the report"
