"""The default for tables: each member against a slow, obvious reference, and their mean."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from test_loe_gaussian import CPU, Held
from torch import Tensor, nn

from anoaudit.methods.loe.alternate import alternate
from anoaudit.methods.loe.assignment import Assignment
from anoaudit.methods.loe.ensemble import Ensemble
from anoaudit.methods.loe.forest import DEPTH, TREES, IsolationForest, mean_path
from anoaudit.methods.loe.nearest import SAMPLES, NearestSamples
from anoaudit.methods.loe.options import LoeOptions
from anoaudit.methods.loe.pairs import loss_pair
from anoaudit.progress import Reporter


def normal_rows(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d))).float()


def path_by_walking(forest: IsolationForest, tree: int, x: np.ndarray) -> float:
    inner = 2**DEPTH - 1
    node = 0
    while node < inner:
        at = tree * inner + node
        right = x[int(forest.feature[at])] >= float(forest.threshold[at])
        node = 2 * node + 1 + int(right)
    return float(forest.path[tree * 2**DEPTH + node - inner])


@pytest.mark.parametrize(("rows", "columns"), [(600, 4), (600, 1), (40, 3), (3, 2), (1, 2)])
def test_the_forest_scores_by_the_mean_path(rows, columns):
    x = normal_rows(rows, columns)
    forest = IsolationForest(3)
    forest.m_step(Held(x), torch.ones(rows), CPU)
    for i in {0, rows // 2, rows - 1}:
        mean = np.mean([path_by_walking(forest, t, x[i].numpy()) for t in range(TREES)])
        assert float(forest.score(x)[i]) == pytest.approx(2**-mean, rel=1e-5)


def test_paths_are_the_depths_of_a_tree_of_all_rows():
    """Every row of a tiny set ends alone: a leaf's path is its depth, and depths fill the tree (Kraft)."""
    x = normal_rows(7, 2)
    forest = IsolationForest(0)
    forest.m_step(Held(x), torch.ones(7), CPU)
    c = 2 * sum(1 / k for k in range(1, 7)) - 2 * 6 / 7
    for tree in range(TREES):
        depths = np.array([path_by_walking(forest, tree, row.numpy()) for row in x]) * c
        if depths.max() < 3:  # the height limit ⌈log₂ 7⌉ did not cut it
            assert sum(2.0**-d for d in depths.round(6)) == pytest.approx(1)
    assert mean_path(1)[0] == 0
    assert mean_path(2)[0] == pytest.approx(1)
    assert mean_path(256)[0] == pytest.approx(2 * (math.log(255) + 0.5772156649) - 2 * 255 / 256, abs=0.005)


def test_flagged_rows_are_in_no_tree_and_no_sample():
    x = normal_rows(300, 2)
    x[:30] += 50
    weights = torch.ones(300)
    weights[:30] = 0
    forest, nearest = IsolationForest(0), NearestSamples(2, 0)
    forest.m_step(Held(x), weights, CPU)
    nearest.m_step(Held(x), weights, CPU)
    assert float(forest.threshold[torch.isfinite(forest.threshold)].max()) < 10
    assert float(nearest.pool.max()) < 10
    assert len(nearest.pool) == 270


def test_equal_rows_and_columns_leave_nothing_to_split():
    forest = IsolationForest(0)
    forest.m_step(Held(torch.ones(50, 3)), torch.ones(50), CPU)
    assert torch.isinf(forest.threshold).all()
    assert torch.isfinite(forest.score(torch.ones(2, 3))).all()


@pytest.mark.parametrize("rows", [2000, 400, 20, 2])
def test_nearest_samples_against_the_definition(rows):
    x = normal_rows(rows, 5)
    nearest = NearestSamples(5, 1)
    nearest.m_step(Held(x), torch.ones(rows), CPU)
    samples = nearest.pool[nearest.member].reshape(SAMPLES, -1, 5).double()
    assert samples.shape[1] == min(64, max(2, rows // 16), rows)
    new = normal_rows(6, 5, seed=9)
    distances = [sorted(float((s - row).norm(dim=1).min()) for s in samples) for row in new.double()]
    wanted = [np.mean(nearest_ones[SAMPLES // 8 :]) for nearest_ones in distances]
    assert nearest.score(new).tolist() == pytest.approx(wanted, rel=1e-4)


class Fixed(nn.Module):
    """A member whose score is one column."""

    batch = 100

    def __init__(self, column: int) -> None:
        super().__init__()
        self.column = column

    def score(self, x: Tensor) -> Tensor:
        return x[:, self.column]

    def m_step(self, *_: object) -> None: ...


def test_the_score_is_the_members_geometric_mean():
    x = torch.from_numpy(np.random.default_rng(0).lognormal(size=(501, 2)) * [1.0, 1000.0])
    x[0] *= 1e9  # so far out that the tangent is used
    ensemble = Ensemble({"a": Fixed(0), "b": Fixed(1)})
    ensemble.fit(lambda member, _: member.score(x))
    z = np.zeros(501)
    for column in x.numpy().T:
        median, bulk = np.quantile(column, [0.5, 0.7])
        unit = np.log(1.01 * bulk) - np.log(median + 0.01 * bulk)
        z_m = (np.log(column + 0.01 * bulk) - np.log(median + 0.01 * bulk)) / unit
        z += np.where(z_m > 0, z_m, z_m / 5) / 2
    wanted = np.where(z < 30, np.exp(np.minimum(z, 30)), np.exp(30) * (z - 29))
    assert ensemble.score(x).numpy() == pytest.approx(wanted, rel=1e-5)


def test_one_blind_member_does_not_hide_what_the_others_see():
    """Broken correlations, far values and rows between groups: each kind is seen by some members only."""
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 2, 960)
    rows = rng.normal(size=(960, 3))
    rows = np.column_stack([rows[:, 0], rows[:, 0] + 0.1 * rows[:, 1], rows[:, 2] + 12 * groups])
    odd = [[1.5, -1.5, 0.0]] * 10 + [[0.0, 0.0, 6.0]] * 10 + [[0.0, 0.0, 40.0]] * 10
    both = np.concatenate([rows, np.array(odd) + 0.05 * rng.normal(size=(30, 3))])
    x = torch.from_numpy(both / rows.std(0)).float()
    ensemble = loss_pair(3, LoeOptions().for_data("table"))
    ensemble.fit(
        lambda member, name: alternate(member, Held(x), Assignment("refine", 0.1, 0), 3, CPU, Reporter(), name)[1]
    )
    score = ensemble.score(x)
    for start in (960, 970, 980):
        assert score[start : start + 10].min() > score[:960].quantile(0.75)


def test_a_gaussian_alone_tells_far_values_apart():
    """Beside others it is there for broken correlations, and values beyond three deviations count as three."""
    x = normal_rows(500, 2)
    x[:3, 0] = torch.tensor([8.0, 12.0, 25.0])
    for members, apart in ((("gaussian",), True), (("gaussian", "forest", "nearest"), False)):
        ensemble = loss_pair(2, LoeOptions(members=members).for_data("table"))
        alternate(ensemble.members["gaussian"], Held(x), Assignment("refine", 0.1, 0), 3, CPU, Reporter(), "")
        near, middle, far = ensemble.members["gaussian"].score(x[:3]).tolist()
        assert (near < middle < far) == apart


def test_a_row_of_the_pool_is_as_odd_as_any_other():
    """In many dimensions all distances are alike: a row that finds itself in some samples must not look normal for it."""
    x = normal_rows(3000, 128)
    nearest = NearestSamples(128, 0)
    nearest.m_step(Held(x), torch.ones(3000), CPU)
    score = nearest.score(x)
    pooled = torch.tensor([bool((nearest.pool == row).all(1).any()) for row in x])
    assert int(pooled.sum()) == 1024
    top = score.topk(300).indices
    assert 0.15 < float(pooled[top].float().mean()) < 0.5


def test_thousands_of_columns_of_which_few_vary():
    x = torch.zeros(400, 3000)
    x[:, 1234] = torch.randn(400, generator=torch.Generator().manual_seed(0))
    x[7, 1234] = 9.0
    forest = IsolationForest(0)
    forest.m_step(Held(x), torch.ones(400), CPU)
    assert set(forest.feature[torch.isfinite(forest.threshold)].tolist()) == {1234}
    assert int(forest.score(x).argmax()) == 7
