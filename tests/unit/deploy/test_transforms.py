"""The steps of pre- and post-processing, and that resizing is the runtime's own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgeflock_deploy import transforms
from edgeflock_deploy.processing import InputProcessing, OutputProcessing
from edgeflock_deploy.runtime import LoadedModel

DATA = Path(__file__).parents[2] / "data"
IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7, 2)).astype("uint8")


def after(item: Any, *steps: dict[str, Any], labels: tuple[str, ...] = ()) -> Any:
    """An item after steps as a manifest would hold them: with their defaults filled in."""
    kind = InputProcessing if steps[0]["do"] in {"resize", "crop", "letterbox", "normalise", "layout"} else None
    declared = (kind or OutputProcessing)(name="x", steps=steps)
    told = [step.model_dump(mode="json") for step in declared.steps]
    return transforms.apply(told, np.asarray(item), labels)


def test_resizing_is_what_the_runtimes_own_operators_do() -> None:
    model = LoadedModel.load(DATA / "tiny_resize.tflite")
    names = model.signature_names()
    assert names is not None
    given = dict(zip(names[1], model.run(IMAGE[None].astype("float32")), strict=True))
    smooth = after(IMAGE, {"do": "resize", "height": 8, "width": 6})
    np.testing.assert_allclose(smooth, given["bilinear"][0], atol=1e-4)
    nearest = after(IMAGE, {"do": "resize", "height": 8, "width": 6, "method": "nearest"})
    np.testing.assert_array_equal(nearest, given["nearest"][0])
    assert (smooth.dtype, nearest.dtype) == (np.float32, np.uint8)


def test_the_bits_of_a_resized_and_normalised_image_are_the_same_on_every_machine() -> None:
    steps = (
        {"do": "letterbox", "height": 9, "width": 9, "fill": 114.0},
        {"do": "normalise", "scale": 1 / 255, "mean": [0.485, 0.456], "std": [0.229, 0.224]},
    )
    digest = hashlib.sha256(after(IMAGE, *steps).astype("<f4").tobytes()).hexdigest()
    assert digest.startswith("4912c2897ea6f37814d81b6545bcbd93")


def test_a_letterboxed_image_keeps_its_proportions_in_the_middle() -> None:
    framed = after(np.full((4, 8, 1), 9.0, "float32"), {"do": "letterbox", "height": 8, "width": 8, "fill": 1.0})
    np.testing.assert_array_equal(framed[:, 0, 0], [1, 1, 9, 9, 9, 9, 1, 1])
    np.testing.assert_array_equal(after(framed, {"do": "crop", "height": 4, "width": 8}), np.full((4, 8, 1), 9.0))


def test_normalising_takes_one_number_or_one_per_channel() -> None:
    item = np.array([[[10, 20]]], "uint8")
    one = after(item, {"do": "normalise", "scale": 0.5, "mean": [1], "std": [2]})
    each = after(item, {"do": "normalise", "mean": [10, 0], "std": [1, 10]})
    np.testing.assert_array_equal(one, np.array([[[2, 4.5]]], "float32"))
    np.testing.assert_array_equal(each, np.array([[[0, 2]]], "float32"))


def test_a_layout_moves_the_channels_there_and_back() -> None:
    there = after(IMAGE, {"do": "layout", "to": "CHW"})
    assert there.shape == (2, 5, 7)
    np.testing.assert_array_equal(after(there, {"do": "layout", "to": "HWC"}), IMAGE)


def test_a_cast_rounds_and_clips() -> None:
    given = after([-1.5, 0.5, 1.5, 300.0], {"do": "cast", "dtype": "uint8"})
    assert given.tolist() == [0, 0, 2, 255]


def test_scores_become_shares_places_and_words() -> None:
    scores = np.array([1.0, 3.0, 3.0, -1000.0], "float32")
    assert after(scores, {"do": "softmax"}).sum() == pytest.approx(1)
    assert after(scores, {"do": "sigmoid"})[3] == 0
    assert after(scores, {"do": "argmax"}).tolist() == 1
    assert after(scores, {"do": "top_k", "k": 3}).tolist() == [1, 2, 0]
    assert after(scores, {"do": "top_k", "k": 2, "part": "value"}).tolist() == [3, 3]
    assert after(np.array([3, 250], "uint8"), {"do": "top_k", "k": 1}).tolist() == [1]
    assert after(scores, {"do": "threshold", "at": 3}).tolist() == [False, True, True, False]
    words = after(scores, {"do": "top_k", "k": 2}, {"do": "labels"}, labels=("none", "cat"))
    assert words.tolist() == ["cat", "2"]  # a place without a label goes by its number


@pytest.mark.parametrize(
    ("item", "step", "says"),
    [
        ([1.0, 2.0], {"do": "resize", "height": 2, "width": 2}, "takes an image"),
        (IMAGE, {"do": "crop", "height": 6, "width": 2}, "the image is 5 x 7"),
        (IMAGE, {"do": "normalise", "mean": [1, 2, 3]}, "3 numbers"),
        ([1.0], {"do": "top_k", "k": 2}, "wants 2 values"),
        ([1.0], {"do": "labels"}, "whole numbers"),
    ],
)
def test_an_item_that_a_step_cannot_take_is_refused_in_words(item: Any, step: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        after(item, step)


@pytest.mark.parametrize(
    "step",
    [
        {"do": "resize", "height": 2, "width": 2, "centres": True},
        {"do": "resize", "height": 0, "width": 2},
        {"do": "blur"},
        {"do": "normalise", "std": [0.0]},
    ],
)
def test_a_step_that_is_not_known_to_the_letter_is_refused_and_not_guessed(step: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InputProcessing(name="x", steps=(step,))
