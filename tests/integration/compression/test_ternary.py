from typing import Any

import numpy as np
import pytest

from edgeflock_compression.graph.flat import weights_by_path
from edgeflock_compression.passes.ternary import Settings, make_ternary
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import held, kept
from edgeflock_compression.work import Bench, Work


@pytest.fixture(scope="module")
def parent(mlp_bench: Bench) -> Work:
    return Work(mlp_bench, mlp_bench.parent.model)


@pytest.fixture(scope="module")
def ternary(parent: Work) -> Work:
    return make_ternary(parent, Settings(epochs=30, batch_items=32, alpha=0.5))


def assert_codebooks_are_the_weights(work: Work) -> None:
    for path, book in work.codebooks.items():
        weight = weights_by_path(work.model)[path]
        assert np.array_equal(book.weights(), weight)
        assert np.array_equal(weight != 0, work.masks[path])


def test_three_values_stay_in_the_file_and_it_answers_nearly_as_well(parent: Work, ternary: Work, ship: Any) -> None:
    before, after = ship(parent), ship(ternary)
    for shape in ((64, 64), (10, 64)):
        values = np.unique(after.constants[shape])
        assert len(values) == 3
        assert values[0] < values[1] == 0 < values[2]
    assert after.wire_bytes < 0.25 * before.wire_bytes
    assert after.accuracy >= before.accuracy - 0.03
    assert_codebooks_are_the_weights(ternary)


def test_symmetric_values_stay_opposite_through_later_training(parent: Work) -> None:
    work = make_ternary(parent, Settings(symmetric=True, epochs=1))
    assert_codebooks_are_the_weights(work)
    later = fine_tune(work.model, work.bench, FineTune(epochs=1), held(work))
    for path, book in kept(work, {path: later.parameters[path][0] for path in work.codebooks}).items():
        low, zero, high = np.unique(book.weights())
        assert (low, zero) == (-high, 0)
        assert np.array_equal(book.weights(), weights_by_path(later.model)[path])


def test_channels_with_sizes_of_their_own_become_127_codes_exactly(cnn_bench: Bench, ship: Any) -> None:
    settings = Settings(layers=("hidden", "pointwise"), per="channel", symmetric=True, epochs=1, learning_rate=3e-4)
    work = make_ternary(Work(cnn_bench, cnn_bench.parent.model), settings)
    assert_codebooks_are_the_weights(work)
    for row in ship(work).constants[32, 384]:
        assert len(np.unique(np.abs(row))) == 2
        codes = row / (np.abs(row).max() / 127)
        assert set(np.unique(np.round(codes))) <= {-127, 0, 127}


def test_zeros_of_a_pruned_weight_stay(parent: Work) -> None:
    mask = np.arange(64 * 64).reshape(64, 64) % 2 == 0
    work = make_ternary(Work(parent.bench, parent.model, masks={"dense/kernel": mask}), Settings(epochs=1))
    assert not (work.masks["dense/kernel"] & ~mask).any()
    assert_codebooks_are_the_weights(work)


@pytest.mark.parametrize("of", ["mean", "max"])
def test_a_higher_threshold_leaves_more_zeros(parent: Work, of: Any) -> None:
    low, high = [make_ternary(parent, Settings(epochs=0, threshold=t, threshold_of=of)) for t in (0.1, 0.3)]
    assert low.masks["dense/kernel"].mean() > high.masks["dense/kernel"].mean()


def test_the_start_is_that_of_ternary_weight_networks(parent: Work) -> None:
    work = make_ternary(parent, Settings(epochs=0, symmetric=True))
    weight = weights_by_path(parent.model)["dense/kernel"]
    beyond = np.abs(weight) > 0.7 * np.abs(weight).mean()
    assert np.array_equal(work.masks["dense/kernel"], beyond)
    assert work.codebooks["dense/kernel"].values[1] == pytest.approx(np.abs(weight[beyond]).mean(), rel=1e-5)


def test_layers_left_out_stay_float(parent: Work) -> None:
    work = make_ternary(parent, Settings(epochs=0, except_layers=("dense_1",)))
    assert set(work.codebooks) == {"dense/kernel"}
