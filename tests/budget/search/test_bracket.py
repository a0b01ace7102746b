"""The search for widths that give the speed-up that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from compressor.budget.costs.base import Widths
from compressor.budget.search.bracket import LAVISH, MARGIN, MAX_ATTEMPTS, Attempt, Candidates, search_widths
from exporters.statistics import Speedup

SIZE = 100
NARROWEST = {"layer": 1}
Measure = Callable[[Widths], Speedup]


class MadeUp(Candidates):
    """A network of one group unless told otherwise, whose predicted cost is its share of units."""

    def __init__(self, measure: Measure, choose: Callable[[float], dict[str, int]] | None = None) -> None:
        self.measure_widths, self.choose_widths = measure, choose
        self.measured: Counter[tuple[int, ...]] = Counter()

    def choose(self, share: float) -> dict[str, int]:
        return self.choose_widths(share) if self.choose_widths else {"layer": int(SIZE * share)}

    def price(self, widths: Widths) -> float:
        return -sum(widths.values()) / SIZE

    def predict(self, widths: Widths) -> float:
        return sum(widths.values()) / (SIZE * len(widths))

    def measure(self, widths: Widths) -> Speedup:
        self.measured[tuple(widths.values())] += 1
        return self.measure_widths(widths)


def within(speedup: float, half: float = 0.005) -> Speedup:
    return Speedup(speedup, speedup * (1 - half), speedup * (1 + half))


def device(latency: Callable[[float], float]) -> Measure:
    return lambda widths: within(latency(1.0) / latency(widths["layer"] / SIZE))


LATENCIES: dict[str, Callable[[float], float]] = {
    "proportional": lambda share: share,
    "with overhead": lambda share: 0.2 + share,
    "worse than linear": lambda share: share**2,
    "staircase": lambda share: 0.05 + -(-share * 16 // 1) / 16,
}


@pytest.mark.parametrize("name", LATENCIES)
@pytest.mark.parametrize("target", [1.25, 1.5, 2.0, 3.0])
def test_the_target_is_met_and_hardly_exceeded(name: str, target: float) -> None:
    best = search_widths(target, 0.01, NARROWEST, MadeUp(device(LATENCIES[name])))[-1]
    assert target <= best.speedup.low
    wider = {"layer": best.widths["layer"] + (7 if name == "staircase" else 4)}
    assert best.speedup.median <= LAVISH * target or device(LATENCIES[name])(wider).low < target


def summed(total: float, widths: Widths) -> Speedup:
    return within(total / sum(widths.values()))


def test_between_two_budgets_groups_change_one_by_one() -> None:
    names = [f"layer{n}" for n in range(8)]

    def jumping(share: float) -> dict[str, int]:
        return dict.fromkeys(names, 100 if share > 0.45 else 30)

    made = MadeUp(lambda widths: summed(800, widths), jumping)
    best = search_widths(2.0, 0.01, dict.fromkeys(names, 1), made)[-1]
    assert 2.0 <= best.speedup.median <= 2.2
    assert set(best.widths.values()) == {30, 100}


def test_two_choices_are_not_mixed_to_one_that_no_network_can_have() -> None:
    names = [f"layer{n}" for n in range(8)]
    slow, fast = dict.fromkeys(names, 100), dict.fromkeys(names, 30)
    slow["layer0"] = fast["layer7"] = 0

    class Picky(MadeUp):
        def is_possible(self, widths: Widths) -> bool:
            return bool(widths["layer0"] or widths["layer7"])

        def price(self, widths: Widths) -> float:
            return 0.0 if not widths["layer7"] else -sum(widths.values())  # what vanishes is dear, and comes last

        def measure(self, widths: Widths) -> Speedup:
            assert self.is_possible(widths)
            return super().measure(widths)

    made = Picky(lambda widths: summed(750, widths), lambda share: dict(slow if share > 0.45 else fast))
    attempts = search_widths(1.5, 0.01, fast, made)
    assert any(a.widths not in (slow, fast) for a in attempts)


def test_out_of_reach_gives_the_fastest() -> None:
    attempts = search_widths(4.0, 0.1, NARROWEST, MadeUp(device(lambda share: 1 + share)))
    assert not attempts[-1].holds(4.0)
    assert attempts[-1].speedup.median == max(a.speedup.median for a in attempts)


def test_a_budget_that_stops_too_early_does_not_decide_what_is_out_of_reach() -> None:
    best = search_widths(4.0, 0.5, NARROWEST, MadeUp(device(lambda share: share)))[-1]
    assert best.holds(4.0) and best.widths == NARROWEST


def test_only_the_choice_that_is_taken_is_measured_again() -> None:
    made = MadeUp(device(lambda share: 1 if share > 0.5 else 0.1))
    best = search_widths(3.0, 0.01, NARROWEST, made)[-1]
    assert {widths for widths, count in made.measured.items() if count > 1} == {tuple(best.widths.values())}


@pytest.mark.parametrize("seed", range(20))
def test_candidates_lie_between_the_slowest_that_holds_and_the_fastest_that_does_not(seed: int) -> None:
    rng, target, asked = np.random.default_rng(seed), 2.0, list[float]()
    holding, failing = [0.0], [1.0]

    def choose(share: float) -> dict[str, int]:
        assert max(holding) < share < min(failing)
        asked.append(share)
        return {"layer": len(asked)}

    def measure(widths: Widths) -> Speedup:
        found = within(rng.uniform(0.5, 2.0) / asked[-1], 0.02)
        if widths["layer"] == len(asked):
            (holding if found.low >= target * MARGIN else failing).append(asked[-1])
        return found

    search_widths(target, 0.001, NARROWEST, MadeUp(measure, choose))
    assert 1 <= len(asked) <= MAX_ATTEMPTS


def test_a_choice_that_only_noise_favoured_is_not_taken() -> None:
    lucky = iter([within(2.05), within(1.96)])

    def measure(widths: Widths) -> Speedup:
        return next(lucky) if widths["layer"] == 49 else within(SIZE / widths["layer"])

    class Two(MadeUp):
        def neighbours(self, widths: Widths, share: float) -> Iterable[dict[str, int]]:
            return [{"layer": 49}] if widths["layer"] < 49 else []

    best = search_widths(2.0, 0.01, NARROWEST, Two(measure, lambda share: {"layer": min(48, int(SIZE * share))}))[-1]
    assert best.widths == {"layer": 48} and best.holds(2.0)


def test_what_is_left_of_the_budget_is_spent_on_cheaper_neighbours() -> None:
    class Wider(MadeUp):
        def neighbours(self, widths: Widths, share: float) -> Iterable[dict[str, int]]:
            wider = {name: width + 1 for name, width in widths.items()}
            return [wider] if sum(wider.values()) <= share * SIZE else []

    best = search_widths(2.0, 0.01, NARROWEST, Wider(device(lambda share: share), lambda share: {"layer": 45}))[-1]
    assert best.widths["layer"] == 49
    assert best.speedup.low >= 2.0 * MARGIN


def test_a_prediction_that_is_far_off_corrects_the_budget() -> None:
    made = MadeUp(device(lambda share: 0.5 + 0.5 * share))
    best = search_widths(1.5, 0.01, NARROWEST, made)[-1]
    assert best.holds(1.5) and not best.is_lavish(1.5)
    assert len(made.measured) <= 4


class Judged(MadeUp):
    """A network of two groups in which one of two choices of the same cost is much better than its price says."""

    def __init__(self, losses: dict[tuple[int, int], float], time: int = 10) -> None:
        super().__init__(lambda widths: within(200 / sum(widths.values()), 0.001))
        self.losses, self.time = losses, time

    def choose(self, share: float) -> dict[str, int]:
        return {"a": int(SIZE * share), "b": int(SIZE * share)}

    def loss(self, widths: Widths) -> float | None:
        self.time -= 1
        return None if self.time < 0 else self.losses.get((widths["a"], widths["b"]), 1.0)

    def variants(self, share: float) -> Iterable[dict[str, int]]:
        both = int(2 * SIZE * share)
        yield from ({"a": a, "b": both - a} for a in (both // 2, 30, 40, 70, 80))


def test_of_choices_of_about_the_same_price_the_one_with_the_lowest_loss_is_taken() -> None:
    best = pursued(Judged({(30, 69): 0.5, (80, 19): 0.7}))
    assert (best.widths["a"], best.loss) == (30, 0.5)
    assert best.holds(2.0)


def test_a_lower_loss_counts_only_where_the_target_holds() -> None:
    made = Judged({(30, 69): 0.5, (80, 19): 0.7})
    plain = made.measure_widths
    made.measure_widths = lambda widths: within(1.9, 0.001) if widths["a"] == 30 else plain(widths)
    assert pursued(made).widths["a"] == 80


@pytest.mark.parametrize("time", [0, 1])
def test_without_time_the_price_decides(time: int) -> None:
    best = pursued(Judged({(30, 69): 0.5}, time))
    assert best.widths["a"] == best.widths["b"]


def pursued(made: Judged) -> Attempt:
    return search_widths(2.0, 0.01, {"a": 1, "b": 1}, made)[-1]
