"""The named combinations, each through `compress` on real digits: what the files that ship and travel show of them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgeflock_compression.pipeline import compress
from edgeflock_compression.variant import Variant
from edgeflock_deploy.bundle import decode, encode_blob
from edgeflock_deploy.codec.tflite_layout import constants

DISTILLED = """name = "distilled"
[[pass]]
use = "distill"
width = 0.5
epochs = 20
[[pass]]
use = "ptq"
mode = "static"
"""
CHANNELS_DISTILLED = """name = "channels_distilled"
[[pass]]
use = "prune_channels"
mac_ratio = 0.4
epochs = 6
alpha = 0.7
[[pass]]
use = "ptq"
mode = "static"
"""


class Shipped(NamedTuple):
    """A variant, the bytes of its file, and the file's int8 constants of 2 or more dimensions."""

    variant: Variant
    file: bytes
    kernels: list[Any]


@pytest.fixture(scope="module")
def cnn(keras_module: Any, digits_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers, path = keras_module.layers, tmp_path_factory.mktemp("cnn") / "cnn.keras"
    keras_module.utils.set_random_seed(0)
    model = keras_module.Sequential(
        [
            keras_module.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, padding="same", strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    with np.load(digits_images) as data:
        model.fit(data["x_train"], data["y_train"], epochs=12, batch_size=32, verbose=0)
    model.save(path)
    return path


@pytest.fixture(scope="module")
def shipped(cnn: Path, digits_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Shipped]:
    out = tmp_path_factory.mktemp("combinations")
    files = {"distilled": DISTILLED, "channels_distilled": CHANNELS_DISTILLED}
    for name, text in files.items():
        (out / f"{name}.toml").write_text(text)
    names = ["static_wi8_ai8", "p80_static_wi8_ai8", "p80_c16_qat8_pack3", *(str(out / f"{n}.toml") for n in files)]
    made = compress(cnn, digits_images, names, out, threads=1)
    return {variant.name: _shipped(variant, out / variant.name / "model.tflite") for variant in made}


def _shipped(variant: Variant, path: Path) -> Shipped:
    file = path.read_bytes()
    kernels = [
        np.frombuffer(file[one.offset : one.offset + one.length], np.int8).reshape(one.shape)
        for one in constants(file)
        if one.bits == 8 and len(one.shape) >= 2
    ]
    return Shipped(variant, file, kernels)


def elements(one: Shipped) -> int:
    return sum(kernel.size for kernel in one.kernels)


def accuracy(one: Shipped) -> float:
    assert one.variant.accuracy is not None
    return one.variant.accuracy


def test_prune_then_quantize_leaves_int8_kernels_of_zeros_that_need_not_travel(shipped: Mapping[str, Shipped]) -> None:
    dense, pruned = shipped["static_wi8_ai8"], shipped["p80_static_wi8_ai8"]
    zeros = sum(int((kernel == 0).sum()) for kernel in pruned.kernels)
    assert elements(pruned) == elements(dense)
    assert zeros >= 0.79 * elements(pruned)
    assert pruned.variant.wire_bytes < 0.6 * dense.variant.wire_bytes
    assert pruned.variant.raw_bytes == pytest.approx(dense.variant.raw_bytes, rel=0.02)
    assert accuracy(pruned) > accuracy(dense) - 0.03


def test_distill_then_quantize_ships_a_student_of_a_quarter_of_the_weights(shipped: Mapping[str, Shipped]) -> None:
    dense, student = shipped["static_wi8_ai8"], shipped["distilled"]
    assert elements(student) < 0.3 * elements(dense)
    assert student.variant.raw_bytes < 0.7 * dense.variant.raw_bytes
    assert accuracy(student) > accuracy(dense) - 0.05


def test_channels_taught_by_the_parent_then_int8_are_fewer_in_every_dense_kernel_of_the_file(
    shipped: Mapping[str, Shipped],
) -> None:
    dense, thin = shipped["static_wi8_ai8"], shipped["channels_distilled"]
    notes = thin.variant.passes["prune_channels"]
    assert notes["multiply_adds_after"] <= 0.42 * notes["multiply_adds_before"]
    assert len(thin.kernels) == len(dense.kernels)
    assert elements(thin) < 0.7 * elements(dense)
    assert accuracy(thin) > accuracy(dense) - 0.05


def test_prune_cluster_and_train_with_rounding_keep_zeros_and_few_codes_through_the_container(
    shipped: Mapping[str, Shipped],
) -> None:
    dense, packed = shipped["static_wi8_ai8"], shipped["p80_c16_qat8_pack3"]
    zeros = sum(int((kernel == 0).sum()) for kernel in packed.kernels)
    assert zeros >= 0.79 * elements(packed)
    assert all(len(np.unique(kernel)) <= 16 for kernel in packed.kernels)
    assert packed.variant.wire_bytes < 0.4 * dense.variant.wire_bytes
    assert packed.variant.wire_bytes < 0.8 * shipped["p80_static_wi8_ai8"].variant.wire_bytes
    encoded = encode_blob(packed.file)
    travelled = b"".join(decode(io.BytesIO(encoded.container), encoded.blob, encoded.blob.encoding))
    assert travelled == packed.file
    assert accuracy(packed) > accuracy(dense) - 0.04
