"""Constants that lie behind the FlatBuffer of a file, where LiteRT's quantizer puts what it leaves float."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeflock_compression.passes.ptq import LayerChoice, Settings, quantize_after_training
from edgeflock_compression.quantization.file_modes import modes_in
from edgeflock_compression.tflite.float_left import operators
from edgeflock_compression.tflite.foreign import with_signature
from edgeflock_compression.tflite.objects import file_of, model_object
from edgeflock_compression.tflite.wire_estimate import wire_estimate
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.bundle import encode_blob
from edgeflock_deploy.codec.tflite_layout import constants
from edgeflock_deploy.runtime import LoadedModel


@pytest.fixture(scope="module")
def mixed(mlp_bench: Bench) -> bytes:
    """An MLP with one layer in int8 and 64 x 64 weights that stay float."""
    choice = LayerChoice(match="dense", weights="float")
    work = quantize_after_training(Work(mlp_bench, mlp_bench.parent.model), Settings(mode="dynamic", layer=(choice,)))
    assert work.tflite is not None
    return work.tflite


def test_they_are_sections_of_the_container_and_count_in_the_estimate(mixed: bytes) -> None:
    weights = next(one for one in constants(mixed) if one.shape == (64, 64))
    assert (weights.bits, weights.real, weights.length) == (32, True, 64 * 64 * 4)
    assert sum(one.length for one in constants(mixed)) > len(mixed) - 4_000
    container = encode_blob(mixed).containers[0]
    assert wire_estimate(mixed) == pytest.approx(len(container), rel=0.1)


def test_they_are_seen_as_weights(mixed: bytes) -> None:
    assert [(one.layer, one.float_weight) for one in operators(mixed) if one.takes_weights] == [
        ("dense", True),
        ("dense_1", False),
    ]
    assert "float32" in modes_in(mixed)


def test_a_file_without_a_signature_gets_one_and_answers_as_before(
    mixed: bytes, mlp_bench: Bench, tmp_path: Path
) -> None:
    model = model_object(mixed)
    model.signatureDefs = []
    signed = with_signature(file_of(model))
    x = mlp_bench.data.x_validation[0][:20].astype(np.float32)
    answers: list[NDArray[Any]] = []
    for name, data in (("mixed", mixed), ("signed", signed)):
        (tmp_path / name).write_bytes(data)
        loaded = LoadedModel.load(tmp_path / name)
        answers.append(np.stack([loaded.run(item)[0][0] for item in x]))
    assert np.array_equal(answers[0], answers[1])
