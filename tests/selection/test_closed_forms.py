"""Methods that need second moments only: their formulas against brute force, and what they must see."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from compressor.selection import fit
from compressor.selection.base import Calibration, Method
from compressor.selection.consumers import covariance, covariances, spread
from compressor.selection.fit import Covariance, Nested, errors_of, select
from compressor.selection.methods.group_obs import _Elimination
from compressor.selection.methods.imitate_simplex import _Mixture, gram
from compressor.selection.moments import collect_moments
from compressor.structure import find_groups
from compressor.support.plugins import discover
from tests.networks import INPUT, NETWORKS, build
from tests.selection.test_contract import calibration

OURS = ["greedy_forward", "group_obs", "imitate_both", "imitate_global", "imitate_simplex", "imitation"]
METHODS = discover("compressor.selection.methods", Method)


def moments_of(given: Calibration) -> dict:
    consumers = [s.tensor for g in given.groups for s in g.slices if s.role == "consumer"]
    return collect_moments(given.model, consumers, given.images)


def random_covariance() -> torch.Tensor:
    torch.manual_seed(0)
    rows = torch.randn(40, 8, dtype=torch.float64) @ torch.randn(8, 8, dtype=torch.float64)
    return rows.t() @ rows


@pytest.mark.parametrize("kind", NETWORKS)
def test_costs_of_elimination_are_what_solving_again_loses(kind: str) -> None:
    given = calibration(kind)
    group = given.groups[0]
    for part in covariances(given.groups, group, moments_of(given)):
        state, gone = _Elimination(part), []
        own = state.inverse.inverse()

        def error(dropped: list[int], part=part, own=own, state=state) -> torch.Tensor:
            left = torch.ones(len(own), dtype=torch.bool)
            for u in dropped:
                left[state.place[u] * part.area : (state.place[u] + 1) * part.area] = False
            cross = part.cross[left]
            return part.energy - (cross * torch.linalg.solve(own[left][:, left], cross)).sum()

        for unit in part.units.tolist()[:3]:
            costs = state.costs(group.size)
            torch.testing.assert_close(costs[unit], error([*gone, unit]) - error(gone), rtol=1e-6, atol=1e-10)
            state.drop(unit)
            gone.append(unit)


def two_consumers(area: int, units: int = 24) -> list[Covariance]:
    torch.manual_seed(0)
    found = []
    for first in (0, 2):
        columns = (units - first) * area
        rows = torch.randn(3 * columns, columns, dtype=torch.float64) @ torch.randn(columns, columns).double()
        matrix, weight = rows.t() @ rows / len(rows), torch.randn(5, columns, dtype=torch.float64)
        cross = matrix @ weight.t()
        found.append(
            Covariance(matrix, cross, float((weight.t() * cross).sum()), area, torch.arange(first, units), 1e-4)
        )
    return found


@pytest.mark.parametrize("area", [1, 4])
def test_greedy_takes_the_unit_that_leaves_the_smallest_error_of_solving_again(area: int) -> None:
    parts, chosen = two_consumers(area), list[int]()
    order, errors = select(parts, 24)
    while len(chosen) < 24:
        left = [unit for unit in range(24) if unit not in chosen]
        rests = {unit: [u for u in left if u != unit] for unit in left}
        errors_with = {unit: errors_of(parts, [*chosen, unit, *rest]) for unit, rest in rests.items()}
        chosen.append(min(left, key=lambda unit: errors_with[unit][len(chosen) + 1]))
    assert order == chosen
    assert errors == pytest.approx(errors_of(parts, order), abs=1e-9 * errors[0])


@pytest.mark.parametrize("area", [1, 4])
def test_a_round_takes_what_greedy_takes_of_the_best_units(area: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = two_consumers(area)
    exact, _ = select(parts, 24)
    monkeypatch.setattr(fit, "LARGE", 1)
    monkeypatch.setattr(fit, "ROUNDS", 2)
    order, errors = select(parts, 24)
    assert errors == pytest.approx(errors_of(parts, order), abs=1e-9 * errors[0])
    assert order[:12] == exact[:12]


def test_widths_of_one_factorisation_are_those_of_solving_each() -> None:
    part, _ = two_consumers(2)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0)).tolist()
    nested = Nested(replace(part, ridge=0.01), order[:10])
    for width in (1, 5, 10):
        columns = nested.columns[: 2 * width]
        matrix = part.matrix[columns][:, columns] + 0.01 * part.matrix.diagonal().mean() * torch.eye(2 * width)
        torch.testing.assert_close(nested.weight(width), torch.linalg.solve(matrix, part.cross[columns]))


@pytest.mark.parametrize("method", ["imitation", "group_obs"])
def test_fewer_images_than_units_are_enough(method: str) -> None:
    """Averaged maps hardly differ from image to image: the rounding of their large mean must not decide."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 1200, 3, bias=True), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(body, nn.Linear(1200, 10)).eval()
    nn.init.constant_(body[0].bias, 3.0)
    images = [(torch.randn(8, 3, 24, 24),) for _ in range(2)]
    given = Calibration(model, find_groups(model, images[0][0][:1]), images, None, 0)
    (ranking,) = METHODS[method]().rank(given).values()
    errors = torch.tensor(ranking.error, dtype=torch.float64)
    assert errors.isfinite().all() and (errors.diff() <= 0).all()
    assert errors[0] > 0


def test_other_columns_are_projected_out_and_make_up_for_what_is_dropped() -> None:
    given = calibration("plain")
    own = next(iter(moments_of(given).values()))
    own.rows = 100 * own.rows
    own.gram *= 100
    own.total *= 100
    columns, others = torch.arange(9), torch.arange(9, own.weight.shape[2])
    whole = own.second(0, torch.arange(own.weight.shape[2]), True)
    _, ridge = own.inverse(0, True)
    rest = whole[others][:, others] + ridge * torch.eye(len(others), dtype=torch.float64)
    delivered = torch.linalg.solve(rest, whole[others][:, columns]).t()
    part = covariance(own, 0, {0: columns}, True)
    torch.testing.assert_close(part.matrix, whole[columns][:, columns] - delivered @ whole[others][:, columns])
    found, coefficients = spread(own, 0, columns, True)
    assert torch.equal(found, others)
    torch.testing.assert_close(coefficients, delivered)


def test_mixtures_keep_weights_on_the_simplex_and_know_their_error() -> None:
    matrix = random_covariance()
    mixture = _Mixture(matrix)
    errors = [mixture.empty]
    for number in range(1, 9):
        left = (mixture.weights == 0).nonzero()[:, 0]
        mixture.move(mixture.best(left))
        mixture.polish(mixture.weights.nonzero()[:, 0])
        assert float(mixture.weights.sum()) == pytest.approx(1)
        assert float(mixture.weights.min()) >= 0
        difference = 8 * mixture.weights - 1
        assert mixture.error == pytest.approx(float(difference @ matrix @ difference), rel=1e-8)
        errors.append(mixture.error)
        assert int((mixture.weights > 0).sum()) <= number
    assert all(after <= before + 1e-9 for before, after in pairwise(errors[1:]))


def test_contributions_add_up_to_what_the_consumers_deliver() -> None:
    given = calibration("plain")
    for group in given.groups:
        assert float(gram(given.groups, group, moments_of(given)).sum()) == pytest.approx(1)


def doctored(name: str) -> Calibration:
    """A network of which unit 2 of the first group is dead (`dead`), or a copy of unit 5 (`copied`)."""
    model = build("plain")
    with torch.no_grad():
        conv, norm = model[0][0], model[0][1]
        for tensor in (conv.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor[2] = 0 if name == "dead" else tensor[5]
        if name == "dead":
            norm.running_var[2] = 1
    torch.manual_seed(1)
    images = [(torch.randn(16, *INPUT),) for _ in range(4)]
    return Calibration(model, find_groups(model, torch.zeros(1, *INPUT)), images)


@pytest.mark.parametrize("name", OURS)
def test_a_dead_unit_costs_nothing(name: str) -> None:
    ranking = METHODS[name]().rank(doctored("dead"))["0.0"]
    assert 2 not in ranking.order[: 8 - 2]
    assert ranking.error[7] == pytest.approx(0, abs=1e-3 * ranking.error[0] + 1e-6)


@pytest.mark.parametrize("name", ["imitation", "group_obs"])
def test_one_of_two_equal_units_goes_at_no_price(name: str) -> None:
    ranking = METHODS[name]().rank(doctored("copied"))["0.0"]
    assert ranking.order[-1] in (2, 5)
    assert ranking.error[7] == pytest.approx(0, abs=1e-3 * ranking.error[0])
