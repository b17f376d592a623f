from typing import Any

import numpy as np
import pytest

from edgeflock_compression.graph.flat import weights_by_path
from edgeflock_compression.passes.cluster import Settings, cluster, codebook
from edgeflock_compression.passes.prune_weights import Settings as Prune
from edgeflock_compression.passes.prune_weights import prune_weights
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import held
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.errors import BadInput


@pytest.fixture(scope="module")
def parent(mlp_bench: Bench) -> Work:
    return Work(mlp_bench, mlp_bench.parent.model)


@pytest.fixture(scope="module")
def pruned(parent: Work) -> Work:
    return prune_weights(parent, Prune(sparsity=0.7, epochs=10, batch_items=32))


@pytest.fixture(scope="module")
def clustered(parent: Work) -> Work:
    return cluster(parent, Settings(clusters=8, epochs=8, batch_items=32))


def assert_codebooks_are_the_weights(work: Work, model: Any) -> None:
    for path, book in work.codebooks.items():
        assert np.array_equal(book.weights(), weights_by_path(model)[path])


def test_eight_values_stay_in_the_file_and_it_is_smaller_on_the_wire(parent: Work, clustered: Work, ship: Any) -> None:
    before, after = ship(parent), ship(clustered)
    assert len(np.unique(after.constants[64, 64])) == 8
    assert len(np.unique(after.constants[10, 64])) == 8
    assert after.wire_bytes < 0.3 * before.wire_bytes
    assert after.accuracy >= before.accuracy - 0.02


def test_zeros_of_a_pruned_weight_stay_and_count_as_one_value(pruned: Work, ship: Any) -> None:
    work = cluster(pruned, Settings(clusters=16, epochs=4))
    shipped = ship(work)
    for shape, path in (((64, 64), "dense/kernel"), ((10, 64), "dense_1/kernel")):
        assert np.array_equal(shipped.constants[shape].T != 0, pruned.masks[path])
        assert len(np.unique(shipped.constants[shape])) <= 16
        assert work.codebooks[path].values[0] == 0
        assert work.codebooks[path].fixed.tolist() == [True] + [False] * 15
    assert shipped.wire_bytes < 0.6 * ship(pruned).wire_bytes
    assert shipped.accuracy >= ship(pruned).accuracy - 0.02


def test_codebooks_are_the_weights_and_a_later_pass_can_train_their_values(clustered: Work) -> None:
    assert_codebooks_are_the_weights(clustered, clustered.model)
    later = fine_tune(clustered.model, clustered.bench, FineTune(epochs=1), held(clustered))
    weights = weights_by_path(later.model)
    assert all(len(np.unique(weights[path])) == 8 for path in clustered.codebooks)


def test_elements_that_may_move_do_better_than_elements_that_may_not(parent: Work, ship: Any) -> None:
    fixed, moving = [
        ship(cluster(parent, Settings(clusters=3, epochs=8, batch_items=32, moving=share))).accuracy
        for share in (0.0, 0.5)
    ]
    assert moving > fixed


def test_each_output_channel_may_have_values_of_its_own(cnn_bench: Bench, ship: Any) -> None:
    work = cluster(
        Work(cnn_bench, cnn_bench.parent.model),
        Settings(clusters={"hidden": 4}, per="channel", epochs=2, learning_rate=3e-4),
    )
    book = work.codebooks["hidden/kernel"]
    assert book.values.shape == (4, 32)
    assert_codebooks_are_the_weights(work, work.model)
    assert all(len(np.unique(row)) <= 4 for row in ship(work).constants[32, 384])


def test_weights_that_share_already_and_weights_too_small_are_left_with_a_reason(clustered: Work) -> None:
    again = cluster(clustered, Settings(clusters=4, epochs=0))
    assert {part.reason for part in again.skipped} == {"an earlier pass made its elements share values"}
    assert_codebooks_are_the_weights(again, again.model)
    few = cluster(Work(clustered.bench, clustered.bench.parent.model), Settings(clusters={"dense_1": 640}, epochs=0))
    assert [part.reason for part in few.skipped] == ["has 640 elements, no more than clusters"]


def test_one_value_is_refused(parent: Work) -> None:
    with pytest.raises(BadInput, match="clusters 1 is too few"):
        cluster(parent, Settings(clusters=1))


def test_a_wholly_pruned_channel_needs_no_values_but_zero() -> None:
    weight = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]], np.float32)
    book = codebook(weight, weight != 0, 3, per_channel=True)
    assert np.array_equal(book.weights()[:, 1], [0, 0, 0])
    assert book.weights()[:, 0].tolist() == [1.5, 1.5, 4.0]
