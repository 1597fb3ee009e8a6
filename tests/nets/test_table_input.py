"""The table head against a slow reference in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anoaudit.data.items import ColumnRule, TableSpec
from anoaudit.nets.table_input import LARGEST, TableInput, alikeness, is_embedding

NUMERIC, COLOURS = ColumnRule("x", "numeric"), ColumnRule("colour", "categorical", ("red", "green"))
RNG = np.random.default_rng(0)


def run(spec: TableSpec, train: np.ndarray, rows: np.ndarray, scaling: str = "standard") -> np.ndarray:
    out = TableInput(spec, train, scaling)(torch.from_numpy(np.asarray(rows, dtype=np.float64)))
    assert out.dtype == torch.float32
    return out.numpy()


def column(train, values, scaling="standard"):
    train, values = np.asarray(train, dtype=float)[:, None], np.asarray(values, dtype=float)[:, None]
    return run(TableSpec((NUMERIC,)), train, values, scaling)[:, 0].tolist()


def reference(train: list[float], value: float, scaling: str) -> float:
    finite = sorted(v for v in train if math.isfinite(v) and abs(v) <= 1e300)
    n = len(finite)
    median = (finite[(n - 1) // 2] + finite[n // 2]) / 2
    if not math.isfinite(value):
        value = median
    mean = sum(finite) / n
    if scaling == "standard":
        center, scale = mean, math.sqrt(sum((v - mean) ** 2 for v in finite) / n)
    elif scaling == "robust":
        low, high = np.quantile(finite, [0.25, 0.75])
        cut = np.clip(finite, *np.quantile(finite, [0.005, 0.995]))
        center, scale = median, max((high - low) / 1.349, cut.std() / 4)
    elif scaling == "minmax":
        center, scale = finite[0], finite[-1] - finite[0]
    else:
        center, scale = 0.0, 1.0
    most = 1e15 if scaling == "none" else LARGEST
    return min(max(value / (scale or 1.0) - center / (scale or 1.0), -most), most)


@pytest.mark.parametrize("scaling", ["standard", "robust", "minmax", "none"])
def test_numbers_against_the_reference(scaling):
    train = [*RNG.normal(3, 7, 41).tolist(), math.nan, math.inf, -math.inf, 1e308]
    values = [*train, 0.0, -50.5, -1e308]
    wanted = [reference(train, v, scaling) for v in values]
    assert column(train, values, scaling) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_missing_is_the_median_not_the_mean():
    train = [0, 0, 0, 0, 10]
    assert column(train, [math.nan, 0]) == pytest.approx([-0.5, -0.5])


@pytest.mark.parametrize("scaling", ["standard", "robust", "minmax"])
def test_epoch_seconds_keep_their_hundredths(scaling):
    start = 1.7e9
    train = start + RNG.uniform(0, 60, 100)
    first, second = column(train, [start + 12.34, start + 12.35], scaling)
    unit = {
        "standard": np.std(train),
        "robust": np.subtract(*np.quantile(train, [0.75, 0.25])) / 1.349,
        "minmax": np.ptp(train),
    }
    assert second > first
    assert second - first == pytest.approx(0.01 / unit[scaling], rel=1e-2)


@pytest.mark.parametrize("scaling", ["standard", "robust", "minmax", "none"])
def test_constant_and_empty_columns_give_finite_features(scaling):
    for train in ([5.0] * 30, [math.nan] * 30, [1e-300] * 30, [1e300] * 30, [0.1 + 0.2] * 29 + [0.3]):
        out = column(train, [5.0, math.nan, math.inf, 1e308, 1e299, -3.0], scaling)
        assert np.isfinite(out).all()
    assert column([5.0] * 30, [5.0, 6.0], "standard") == [0.0, 1.0]


def test_a_huge_column_does_not_overflow():
    train = np.where(np.arange(40) % 2, 1e300, -1e300)
    assert column(train, [1e300, -1e300, 0.0]) == pytest.approx([1, -1, 0])
    assert np.isfinite(column([*[1.0] * 39, 1e300], [1e300, 1.0, 2.0])).all()


@pytest.mark.parametrize("scaling", ["standard", "robust", "minmax"])
def test_the_largest_doubles_are_extreme_and_not_missing(scaling):
    train = RNG.normal(1e3, 1e-9, 40)  # so small a scale overflows
    assert column(train, [1.7e308, -1.7e308, 1e305], scaling) == [LARGEST, -LARGEST, LARGEST]


def test_far_values_are_cut_when_scaled_and_kept_when_not():
    train = np.arange(10.0)
    assert column(train, [1e9, -1e9]) == [LARGEST, -LARGEST]
    assert column(train * 1000, [5000.0, 9000.0, 1e6], "none") == [5000.0, 9000.0, 1e6]
    assert np.isfinite(np.square(np.float32(column(train, [1e299], "none")[0])))


def test_robust_does_not_blow_up_where_most_values_are_equal():
    out = column([0.0] * 90 + [1.0] * 10, [1.0, 0.0], "robust")
    assert out[1] == 0
    assert out[0] == pytest.approx(4 / 0.3)


@pytest.mark.parametrize("wild", [1e6, 1e300])
def test_one_wild_value_does_not_hide_a_robust_column(wild):
    train = [*RNG.normal(size=499).tolist(), wild]
    assert column(train, [8.0], "robust")[0] > 6
    rare = [0.0] * 997 + [1.0] * 3  # nothing is left of it once the ends are cut
    assert column(rare, [1.0], "robust")[0] == pytest.approx(4 / np.std(rare))


def test_unit_rows_have_one_length_and_keep_their_direction():
    spec = TableSpec((NUMERIC, NUMERIC, NUMERIC))
    train = RNG.normal(size=(20, 3))
    rows = np.array([[3.0, 4.0, 0.0], [-3e9, 0.0, 4e9], [0.0, 0.0, 0.0], [1.0, math.nan, math.inf]])
    out = run(spec, train, rows, "unit")
    assert out.shape == (4, 4)  # the fourth is the length
    assert out[0, :3] == pytest.approx(np.array([0.6, 0.8, 0.0]) * math.sqrt(3))
    assert out[1, :3] == pytest.approx(np.array([-0.6, 0.0, 0.8]) * math.sqrt(3))
    assert (out[2, :3] == 0).all()
    assert out[2, 3] < out[3, 3] < out[0, 3] < out[1, 3]
    assert np.isfinite(out).all()


def test_embeddings_are_told_from_other_wide_tables():
    rng = np.random.default_rng(0)
    spec = TableSpec((NUMERIC,) * 130)
    embedding = np.abs(rng.normal(size=(300, 130)) * rng.uniform(0.5, 2, 130))
    assert is_embedding(spec, embedding)
    assert not is_embedding(spec, embedding * 10 ** rng.uniform(-4, 4, 130))  # of many units
    assert is_embedding(spec, np.maximum(embedding - 0.5, 0))  # after a rectifier
    assert not is_embedding(spec, embedding.round())
    assert not is_embedding(TableSpec((NUMERIC,) * 20), embedding[:, :20])
    assert not is_embedding(TableSpec((NUMERIC,) * 129 + (COLOURS,)), embedding)


def test_categories_against_the_reference():
    codes = np.array([0.0] * 60 + [1.0] * 30 + [math.nan] * 10)
    spec = TableSpec((COLOURS,))
    assert TableInput(spec, codes[:, None], "standard").width == 4
    rows = [0.0, 1.0, 2.0, math.nan]  # red, green, never seen, missing
    out = run(spec, codes[:, None], np.array(rows)[:, None])
    shares = [0.6, 0.3, 0.01, 0.1]  # a floor of 1/N for what never came
    for i, level in enumerate([0, 1, 2, 3]):
        for k in range(4):
            wanted = ((level == k) - shares[k]) / math.sqrt(shares[k] * 3)
            assert out[i, k] == pytest.approx(wanted, rel=1e-5)
    norms = np.linalg.norm(out, axis=1)
    assert norms[2] > norms[3] > norms[1] > norms[0]  # the rarer the farther


def test_columns_keep_their_places():
    spec = TableSpec((COLOURS, NUMERIC, ColumnRule("c2", "categorical", ("a",)), ColumnRule("y", "boolean")))
    rows = np.column_stack([RNG.integers(0, 2, 50), RNG.normal(size=50), np.zeros(50), RNG.integers(0, 2, 50)]).astype(
        float
    )
    whole = run(spec, rows, rows)
    assert whole.shape == (50, 2 + 4 + 3)
    assert np.allclose(whole[:, 0], column(rows[:, 1], rows[:, 1]))
    assert np.allclose(whole[:, 1], column(rows[:, 3], rows[:, 3]))
    assert np.allclose(whole[:, 2:6], run(TableSpec((COLOURS,)), rows[:, :1], rows[:, :1]))
    assert np.allclose(run(spec, rows, rows[7:8]), whole[7:8])  # no company matters


def test_an_interval_is_from_nothing_to_one():
    spec = TableSpec((COLOURS, NUMERIC, ColumnRule("y", "boolean")))
    rows = np.column_stack([RNG.integers(0, 2, 50), RNG.normal(size=50), RNG.integers(0, 2, 50)]).astype(float)
    out = run(spec, rows, rows, "interval")
    assert out.min() == 0
    assert out.max() == 1
    assert np.allclose(out[:, 0], (rows[:, 1] - rows[:, 1].min()) / np.ptp(rows[:, 1]))
    assert np.array_equal(out[:, 1], rows[:, 2])
    assert np.array_equal(out[:, 2:], np.eye(4)[rows[:, 0].astype(int)])
    assert run(spec, rows, np.array([[np.nan, 99.0, 0.0]]), "interval")[0, 0] > 10  # what lies outside stays outside


def mad(x):
    return np.median(np.abs(x - np.median(x, 0)), 0)


def test_alikeness_is_the_squared_correlation_of_most_columns_with_most_others():
    one = RNG.normal(size=(3000, 1))
    alike = (one + 0.3 * RNG.normal(size=(3000, 5))).astype(np.float32)
    cut = np.clip(alike[::2] - np.median(alike[::2], 0), *(np.array([-3, 3])[:, None] * 1.4826 * mad(alike[::2])))
    # Of four others the lower median, the second; of five columns the second again.
    each = sorted(sorted(np.corrcoef(cut[:, [i, j]].T)[0, 1] ** 2 for j in range(5) if j != i)[1] for i in range(5))
    assert alikeness(torch.from_numpy(alike)) == pytest.approx(each[1], rel=1e-4)
    assert alikeness(torch.from_numpy(alike * [1e6, 1, 1e-6, 1, 1])) == pytest.approx(each[1], rel=1e-4)
    free = torch.from_numpy(RNG.normal(size=(3000, 5)).astype(np.float32))
    assert alikeness(free) < 0.01
    assert (
        alikeness(torch.cat([torch.from_numpy(alike), free[:, :1]], 1)) > 0.8
    )  # a timestamp beside copies of a sensor
    assert alikeness(torch.cat([torch.from_numpy(alike), free[:, :3]], 1)) < 0.01
    constant = torch.full((3000, 2), 7.0)
    assert alikeness(torch.cat([free, constant], 1)) == alikeness(free)
    assert (alikeness(free[:, :1]), alikeness(constant)) == (1, 0)
    free[0] = 1e3  # one wild row does not make all columns alike
    assert alikeness(free) < 0.02
