"""Structured pruning on trained nets: what gets smaller, what stays, and that it still answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_compression.channels.residual_blocks import residual_blocks, without_block
from edgeflock_compression.graph.export import export_saved_model
from edgeflock_compression.graph.flat import weights_by_path, with_weights
from edgeflock_compression.graph.macs import multiply_adds
from edgeflock_compression.passes.prune_channels import Settings, prune_channels
from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.tflite.float_latency import Ratio, latency_ratio_to
from edgeflock_compression.work import Bench, Codebook, Work
from edgeflock_deploy.runtime import LoadedModel
from edgeflock_deploy.scoring import accuracy, answers


def _settings(**changed: Any) -> Settings:
    return Settings.model_validate({"round_to": 4, "epochs": 10, "batch_items": 32, "learning_rate": 2e-3} | changed)


def _work(bench: Bench) -> Work:
    return Work(bench, bench.parent.model)


def _macs(model: Any) -> int:
    return sum(multiply_adds(model).values())


def _accuracy(model: Any, bench: Bench) -> float:
    given = np.asarray(model(bench.data.x_validation[0], training=False))
    return accuracy(answers("classification", given), bench.data.y_validation)


def _float_tflite(model: Any, bench: Bench, folder: Path) -> Path:
    export_saved_model(model, folder / "saved_model", [part.shape[1:] for part in bench.data.x_fit])
    path = folder / "model.tflite"
    path.write_bytes(tensorflow().lite.TFLiteConverter.from_saved_model(str(folder / "saved_model")).convert())
    return path


def test_half_the_channels_of_a_digits_net_go_and_the_file_answers_nearly_as_well(
    cnn_bench: Bench, tmp_path: Path
) -> None:
    parent = cnn_bench.parent.model
    before = weights_by_path(parent)
    result = prune_channels(_work(cnn_bench), _settings(ratio=0.5, criterion="l1"))
    for path, weight in weights_by_path(parent).items():
        np.testing.assert_array_equal(weight, before[path])
    notes = result.notes["prune_channels"]
    sizes = {name: after for name, (_, after) in notes["channels"].items()}
    assert sizes["stem"] == sizes["branch"]
    assert sizes["stem"] + sizes["pointwise"] + sizes["hidden"] <= (16 + 24 + 32) / 2
    assert notes["multiply_adds_after"] == _macs(result.model) < 0.5 * _macs(parent)
    assert notes["multiply_adds_before"] == _macs(parent)
    assert _accuracy(result.model, cnn_bench) > _accuracy(parent, cnn_bench) - 0.05
    big = _float_tflite(parent, cnn_bench, tmp_path / "big")
    small = _float_tflite(result.model, cnn_bench, tmp_path / "small")
    assert small.stat().st_size < 0.6 * big.stat().st_size
    items = cnn_bench.data.x_validation[0][:100]
    runtime = LoadedModel.load(small)
    outputs = np.concatenate([runtime.run(item)[0] for item in items])
    np.testing.assert_allclose(outputs, np.asarray(result.model(items)), atol=1e-5)


@pytest.mark.parametrize("criterion", ["l1", "bn", "taylor"])
def test_every_criterion_reaches_a_share_of_the_multiply_adds(cnn_bench: Bench, criterion: str) -> None:
    result = prune_channels(_work(cnn_bench), _settings(mac_ratio=0.5, criterion=criterion, steps=2, epochs=8))
    assert _macs(result.model) <= 0.5 * _macs(cnn_bench.parent.model)
    assert _accuracy(result.model, cnn_bench) > 0.85
    sizes = result.notes["prune_channels"]["channels"]
    assert sizes["stem"][1] == sizes["branch"][1]
    assert all(after % 4 == 0 for name, (_, after) in sizes.items() if name != "head")
    assert [part.layer for part in result.skipped] == ["head"] + ["pointwise", "hidden"] * (criterion == "bn")


def test_units_of_a_dense_net_go_and_the_same_settings_give_the_same_model(mlp_bench: Bench) -> None:
    runs = [prune_channels(_work(mlp_bench), _settings(ratio=0.75, epochs=2)) for _ in range(2)]
    assert runs[0].notes["prune_channels"]["channels"] == {"dense": [64, 16], "dense_1": [10, 10]}
    weights = [weights_by_path(run.model) for run in runs]
    for path, weight in weights[0].items():
        np.testing.assert_array_equal(weight, weights[1][path])


@pytest.mark.parametrize("criterion", ["l1", "taylor"])
def test_channels_that_do_nothing_are_the_first_to_go(cnn_bench: Bench, criterion: str) -> None:
    work = _work(cnn_bench)
    weights = weights_by_path(work.model)
    idle = [1, 3, 4, 7, 11, 20, 21, 23]
    for path in ("pointwise/kernel", "pointwise/bias"):
        weights[path] = weights[path].copy()
        weights[path][..., idle] = 0
    work = replace(work, model=with_weights(work.model, weights))
    result = prune_channels(work, _settings(ratio=8 / 72, round_to=8, criterion=criterion, epochs=0))
    assert result.notes["prune_channels"]["channels"]["pointwise"] == [24, 16]
    given = cnn_bench.data.x_validation[0]
    np.testing.assert_allclose(np.asarray(result.model(given)), np.asarray(work.model(given)), atol=1e-5)


def test_masks_and_codebooks_of_earlier_passes_are_cut_and_hold(cnn_bench: Bench) -> None:
    work = _work(cnn_bench)
    rng = np.random.default_rng(0)
    mask = rng.random((3, 3, 16, 16)) < 0.5
    codes = rng.integers(0, 4, (4 * 24 * 4, 32))
    per_channel = Codebook(rng.normal(size=(4, 32)).astype(np.float32), codes, np.array([True, False, False, False]))
    work = replace(work, masks={"branch/kernel": mask}, codebooks={"hidden/kernel": per_channel})
    result = prune_channels(work, _settings(ratio=0.5, epochs=1, criterion="l1"))
    weights = weights_by_path(result.model)
    held = result.masks["branch/kernel"]
    assert held.shape == weights["branch/kernel"].shape != mask.shape
    assert held.mean() == pytest.approx(0.5, abs=0.1)
    assert not weights["branch/kernel"][~held].any()
    book = result.codebooks["hidden/kernel"]
    np.testing.assert_array_equal(book.weights(), weights["hidden/kernel"])
    assert book.codes.shape != codes.shape


def test_a_residual_block_goes_with_all_its_layers_and_masks(cnn_bench: Bench) -> None:
    work = replace(_work(cnn_bench), masks={"branch/kernel": np.ones((3, 3, 16, 16), np.bool_)})
    result = prune_channels(work, _settings(blocks=2, epochs=6))
    names = {layer.name for layer in result.model.layers}
    assert not names & {"branch", "branch_bn", "branch_relu", "residual"}
    assert "branch/kernel" not in result.masks
    assert _accuracy(result.model, cnn_bench) > 0.85
    notes = result.notes["prune_channels"]
    assert [removed["block"] for removed in notes["blocks_removed"]] == ["residual"]
    assert notes["channels"]["branch"] == [16, 0]
    assert "1 residual blocks" in result.skipped[0].reason


def test_only_a_sum_with_its_own_source_is_a_block(keras_module: Any) -> None:
    layers = keras_module.layers
    x = given = keras_module.Input((8,))
    inner = layers.Dense(8, name="deep")(layers.Dense(8, activation="relu", name="wide")(x))
    x = layers.Add(name="identity")([inner, x])
    x = layers.Add(name="projected")([layers.Dense(4, name="left")(x), layers.Dense(4, name="right")(x)])
    x = layers.Add(name="doubled")([x, x])
    model = keras_module.Model(given, x)
    assert [block.add for block in residual_blocks(model)] == ["identity"]
    (block,) = residual_blocks(model)
    small = without_block(model, block)
    values = np.arange(16, dtype=np.float32).reshape(2, 8)
    weights = weights_by_path(model)
    wanted = 2 * sum(values @ weights[f"{side}/kernel"] + weights[f"{side}/bias"] for side in ("left", "right"))
    np.testing.assert_allclose(np.asarray(small(values)), wanted, rtol=1e-5)
    assert {path.split("/")[0] for path in weights_by_path(small)} == {"left", "right"}


@contextmanager
def _mac_probe(model: Any, bench: Bench) -> Iterator[Ratio]:
    """A machine whose latency is exactly proportional to multiply-adds."""
    yield lambda other: _macs(other) / _macs(model)


def test_a_latency_goal_is_met_by_what_the_probe_measures(cnn_bench: Bench) -> None:
    settings = _settings(latency_ratio=0.6, steps=2, epochs=0)
    result = prune_channels(_work(cnn_bench), settings, probe=_mac_probe)
    notes = result.notes["prune_channels"]
    assert notes["latency_ratio"] == notes["mac_ratio"] <= 0.6
    assert notes["mac_ratio"] > 0.3


def test_the_interpreter_of_this_machine_is_such_a_probe(cnn_bench: Bench) -> None:
    ticks = iter(range(0, 10**9, 1000))
    with latency_ratio_to(cnn_bench.parent.model, cnn_bench, clock_ns=lambda: next(ticks)) as ratio:
        assert ratio(cnn_bench.parent.model) == pytest.approx(1)


def test_a_goal_out_of_reach_and_a_group_too_small_are_told(cnn_bench: Bench) -> None:
    result = prune_channels(_work(cnn_bench), _settings(mac_ratio=0.01, round_to=16, epochs=0))
    reasons = {part.layer: part.reason for part in result.skipped}
    assert "at most round_to" in reasons["stem + branch"]
    assert "before the goal is reached" in reasons[result.model.name]
    assert result.notes["prune_channels"]["channels"]["hidden"] == [32, 16]


@pytest.mark.parametrize("wrong", [{}, {"ratio": 0.5, "mac_ratio": 0.5}, {"ratio": 1.0}, {"ratio": 0.5, "depth": 1}])
def test_settings_without_one_goal_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"goal|ratio|depth"):
        Settings.model_validate(wrong)
