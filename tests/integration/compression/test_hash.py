from typing import Any

import numpy as np
import pytest

from edgeflock_compression.graph.flat import weights_by_path
from edgeflock_compression.passes.hash_weights import Settings, hash_weights
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import held, kept
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.codec.weight_hash import bucket_and_sign
from edgeflock_deploy.errors import BadInput


@pytest.fixture(scope="module")
def parent(mlp_bench: Bench) -> Work:
    return Work(mlp_bench, mlp_bench.parent.model)


@pytest.fixture(scope="module")
def hashed(parent: Work) -> Work:
    return hash_weights(parent, Settings(ratio={"dense": 1 / 16, "dense_1": 1 / 4}, epochs=40, batch_items=32))


def test_a_sixteenth_of_the_values_answers_nearly_as_well(parent: Work, hashed: Work, ship: Any) -> None:
    before, after = ship(parent), ship(hashed)
    assert len(np.unique(np.abs(after.constants[64, 64]))) <= 256
    assert len(np.unique(np.abs(after.constants[10, 64]))) <= 160
    assert after.accuracy >= before.accuracy - 0.05
    assert after.wire_bytes < 0.6 * before.wire_bytes  # by a codec that does not know of the hash


def test_seed_and_values_give_the_tensors_of_the_file(hashed: Work, ship: Any) -> None:
    shipped = ship(hashed)  # the converter folds the model's scaling of its input by 1/16 into the first kernel
    for path, shape, scale in (("dense/kernel", (64, 64), 16), ("dense_1/kernel", (10, 64), 1)):
        book = hashed.codebooks[path]
        assert book.hashed is not None
        half = len(book.values) // 2
        bucket, sign = bucket_and_sign(book.hashed, 64 * shape[0], half)
        assert np.array_equal((book.values[:half][bucket] * sign).reshape(shape), shipped.constants[shape] * scale)


def test_convolution_and_depthwise_tensors_come_from_the_seed_too(cnn_bench: Bench, ship: Any) -> None:
    settings = Settings(layers=("pointwise", "depthwise"), ratio=0.5, epochs=0.5)
    work = hash_weights(Work(cnn_bench, cnn_bench.parent.model), settings)
    shipped = ship(work)
    for path, shape in (("pointwise/kernel", (24, 1, 1, 16)), ("depthwise/kernel", (1, 3, 3, 16))):
        book = work.codebooks[path]
        assert book.hashed is not None
        half = len(book.values) // 2
        bucket, sign = bucket_and_sign(book.hashed, int(np.prod(shape)), half)
        assert np.array_equal((book.values[:half][bucket] * sign).reshape(shape), shipped.constants[shape])


def test_opposite_values_stay_opposite_through_later_training(hashed: Work) -> None:
    later = fine_tune(hashed.model, hashed.bench, FineTune(epochs=1), held(hashed))
    books = kept(hashed, {path: later.parameters[path][0] for path in hashed.codebooks})
    for path, book in books.items():
        half = len(book.values) // 2
        assert np.array_equal(book.values[:half], -book.values[half:])
        assert not np.array_equal(book.values, hashed.codebooks[path].values)
        assert np.array_equal(book.weights(), weights_by_path(later.model)[path])


def test_values_drawn_anew_learn_as_well(parent: Work, ship: Any) -> None:
    work = hash_weights(parent, Settings(ratio=0.25, start="random", epochs=30, batch_items=32))
    assert ship(work).accuracy >= ship(parent).accuracy - 0.05


def test_pruned_weights_are_left_with_a_reason(parent: Work) -> None:
    mask = np.ones((64, 64), bool)
    work = hash_weights(Work(parent.bench, parent.model, masks={"dense/kernel": mask}), Settings(epochs=0))
    assert [(part.layer, part.reason) for part in work.skipped] == [
        ("dense/kernel", "is pruned, and a hash cannot keep its zeros")
    ]
    assert set(work.codebooks) == {"dense_1/kernel"}


def test_a_ratio_of_zero_is_refused(parent: Work) -> None:
    with pytest.raises(BadInput, match=r"ratio 0 is not in 0\.\.1"):
        hash_weights(parent, Settings(ratio=0))
