from typing import Any

import numpy as np
import pytest

from edgeflock_compression.graph.flat import weights_by_path
from edgeflock_compression.passes.binary import Settings, make_binary
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import held, kept
from edgeflock_compression.work import Bench, Work


@pytest.fixture(scope="module")
def parent(mlp_bench: Bench) -> Work:
    return Work(mlp_bench, mlp_bench.parent.model)


@pytest.fixture(scope="module")
def binary(parent: Work) -> Work:
    return make_binary(parent, Settings(epochs=30, batch_items=32, alpha=0.5))


def assert_codebooks_are_the_weights(work: Work) -> None:
    for path, book in work.codebooks.items():
        assert np.array_equal(book.weights(), weights_by_path(work.model)[path])


def test_each_channel_holds_one_size_with_two_signs_and_the_file_answers_nearly_as_well(
    parent: Work, binary: Work, ship: Any
) -> None:
    before, after = ship(parent), ship(binary)
    for shape in ((64, 64), (10, 64)):
        for row in after.constants[shape]:
            assert len(np.unique(np.abs(row))) == 1
    assert after.wire_bytes < 0.25 * before.wire_bytes
    assert after.accuracy >= before.accuracy - 0.04
    assert_codebooks_are_the_weights(binary)


def test_training_is_what_makes_it_good(parent: Work, binary: Work, ship: Any) -> None:
    assert ship(binary).accuracy > ship(make_binary(parent, Settings(epochs=0))).accuracy + 0.02


def test_one_size_per_weight_leaves_two_values(parent: Work, ship: Any) -> None:
    work = make_binary(parent, Settings(per="tensor", epochs=1))
    assert_codebooks_are_the_weights(work)
    values = np.unique(ship(work).constants[64, 64])
    assert len(values) == 2
    assert values[0] == -values[1]


def test_signs_stay_opposite_through_later_training(binary: Work) -> None:
    later = fine_tune(binary.model, binary.bench, FineTune(epochs=1), held(binary))
    for path, book in kept(binary, {path: later.parameters[path][0] for path in binary.codebooks}).items():
        assert np.array_equal(book.weights(), weights_by_path(later.model)[path])
        assert np.array_equal(np.abs(book.weights()), np.broadcast_to(book.values[0], book.codes.shape))


def test_the_start_is_the_mean_magnitude_of_each_channel(parent: Work) -> None:
    work = make_binary(parent, Settings(epochs=0))
    weight = weights_by_path(parent.model)["dense/kernel"]
    assert work.codebooks["dense/kernel"].values[0] == pytest.approx(np.abs(weight).mean(axis=0), rel=1e-5)
    assert np.array_equal(np.sign(work.codebooks["dense/kernel"].weights()), np.where(weight >= 0, 1, -1))


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_zeros_of_a_pruned_weight_stay(parent: Work, per: Any) -> None:
    mask = np.arange(64 * 64).reshape(64, 64) % 3 == 0
    work = make_binary(Work(parent.bench, parent.model, masks={"dense/kernel": mask}), Settings(epochs=1, per=per))
    assert np.array_equal(weights_by_path(work.model)["dense/kernel"] != 0, mask)
    assert_codebooks_are_the_weights(work)


def test_convolutions_are_made_binary_too(cnn_bench: Bench, ship: Any) -> None:
    settings = Settings(layers=("pointwise", "hidden"), epochs=4, learning_rate=3e-4)
    work = make_binary(Work(cnn_bench, cnn_bench.parent.model), settings)
    shipped = ship(work)
    assert all(len(np.unique(np.abs(kernel))) == 1 for kernel in shipped.constants[24, 1, 1, 16])
    assert shipped.accuracy >= ship(Work(cnn_bench, cnn_bench.parent.model)).accuracy - 0.05
