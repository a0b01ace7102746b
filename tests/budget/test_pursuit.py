"""The search for a budget that gives the speed-up that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compressor.budget.model import Widths
from compressor.budget.pursuit import pursue
from exporters.statistics import Speedup

SIZE = 100


def choose(share: float) -> dict[str, int]:
    return {"layer": int(SIZE * share)}


NARROWEST = {"layer": 1}


def price(widths: Widths) -> float:
    return 1 - widths["layer"] / SIZE


def device(latency: Callable[[float], float]) -> Callable[[Widths], Speedup]:
    def measure(widths: Widths) -> Speedup:
        speedup = latency(1.0) / latency(widths["layer"] / SIZE)
        return Speedup(speedup, 0.995 * speedup, 1.005 * speedup)

    return measure


LATENCIES: dict[str, Callable[[float], float]] = {
    "proportional": lambda share: share,
    "with overhead": lambda share: 0.2 + share,
    "worse than linear": lambda share: share**2,
    "staircase": lambda share: 0.05 + -(-share * 16 // 1) / 16,
}


@pytest.mark.parametrize("name", LATENCIES)
@pytest.mark.parametrize("target", [1.25, 1.5, 2.0, 3.0])
def test_the_target_is_met_and_hardly_exceeded(name: str, target: float) -> None:
    best = pursue(target, 0.01, NARROWEST, choose, price, device(LATENCIES[name]))[-1]
    assert target <= best.speedup.low
    wider = {"layer": best.widths["layer"] + (7 if name == "staircase" else 4)}
    assert best.speedup.median <= 1.1 * target or device(LATENCIES[name])(wider).low < target


def test_between_two_budgets_groups_change_one_by_one() -> None:
    names = [f"layer{n}" for n in range(8)]

    def jumping(share: float) -> dict[str, int]:
        return dict.fromkeys(names, 100 if share > 0.45 else 30)

    def measure(widths: Widths) -> Speedup:
        speedup = 800 / sum(widths.values())
        return Speedup(speedup, 0.995 * speedup, 1.005 * speedup)

    best = pursue(2.0, 0.01, dict.fromkeys(names, 1), jumping, lambda w: -sum(w.values()), measure)[-1]
    assert 2.0 <= best.speedup.median <= 2.2
    assert set(best.widths.values()) == {30, 100}


def test_two_choices_are_not_mixed_to_one_that_no_network_can_have() -> None:
    names = [f"layer{n}" for n in range(8)]
    slow, fast = dict.fromkeys(names, 100), dict.fromkeys(names, 30)
    slow["layer0"] = fast["layer7"] = 0

    def measure(widths: Widths) -> Speedup:
        assert possible(widths)
        speedup = 750 / sum(widths.values())
        return Speedup(speedup, 0.995 * speedup, 1.005 * speedup)

    def possible(widths: Widths) -> bool:
        return bool(widths["layer0"] or widths["layer7"])

    def price(widths: Widths) -> float:
        return 0.0 if not widths["layer7"] else -sum(widths.values())  # what goes to nothing is dear, and comes last

    attempts = pursue(1.5, 0.01, fast, lambda share: dict(slow if share > 0.45 else fast), price, measure, possible)
    assert any(a.widths not in (slow, fast) for a in attempts)


def test_out_of_reach_gives_the_fastest() -> None:
    attempts = pursue(4.0, 0.1, NARROWEST, choose, price, device(lambda share: 1 + share))
    assert not attempts[-1].holds(4.0)
    assert attempts[-1].speedup.median == max(a.speedup.median for a in attempts)


def test_a_budget_that_stops_too_early_does_not_decide_what_is_out_of_reach() -> None:
    best = pursue(4.0, 0.5, NARROWEST, choose, price, device(lambda share: share))[-1]
    assert best.holds(4.0) and best.widths == NARROWEST


def test_a_choice_is_measured_once() -> None:
    seen: list[int] = []

    def measure(widths: Widths) -> Speedup:
        seen.append(widths["layer"])
        return device(lambda share: 1 if share > 0.5 else 0.1)(widths)

    pursue(3.0, 0.01, NARROWEST, choose, price, measure)
    assert len(seen) == len(set(seen))
