"""The `steps` of processing as pure functions on numpy arrays: an item in, an item out, without its batch.

Every operation is one rounded float32 operation of numpy, or a copy, so that the same item gives the same bits on every
machine; the exception is the exponential of `softmax` and `sigmoid`, which may differ in the last bit. Steps come as
plain dictionaries (a step's JSON), so that an inference child needs nothing but numpy.

Resizing with half-pixel centres: a place x of the result lies at (x + 0.5) * in / out - 0.5 of the source, clipped to
it (the convention of `tf.image.resize` and of RESIZE_BILINEAR with half_pixel_centers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Told = dict[str, Any]


def apply(steps: Sequence[Told], item: Array, labels: Sequence[str] = ()) -> Array:
    """An item after all steps.

    Args:
        steps: each of `steps` as its JSON says it.
        item: without the batch.
        labels: what the step `labels` chooses from.

    Raises:
        ValueError: an item of a shape that a step cannot take.
    """
    for told in steps:
        item = _named(item, labels) if told["do"] == "labels" else _STEPS[told["do"]](item, told)
    return item


def _image(item: Array, what: str) -> Array:
    if item.ndim != 3 or 0 in item.shape:
        raise ValueError(f"{what} takes an image (height, width, channels), the item is {item.shape}")
    return item


def _resize(item: Array, told: Told) -> Array:
    return resize(_image(item, "resize"), told["height"], told["width"], told["method"])


def resize(image: Array, height: int, width: int, method: str) -> Array:
    """An image (h, w, c) as (height, width, c): float32 for `bilinear`, its own type for `nearest`."""
    if method == "nearest":
        rows = _nearest(image.shape[0], height)
        columns = _nearest(image.shape[1], width)
        picked: Array = image[rows][:, columns]
        return picked
    top, bottom, down = _between(image.shape[0], height)
    left, right, across = _between(image.shape[1], width)
    pixels = image.astype(np.float32)
    across, down = across[None, :, None], down[:, None, None]

    def along(rows: Array) -> Array:
        a, b = rows[:, left], rows[:, right]
        mixed: Array = a + (b - a) * across
        return mixed

    upper, lower = along(pixels[top]), along(pixels[bottom])
    whole: Array = upper + (lower - upper) * down
    return whole


def _places(size: int, wanted: int) -> Array:
    scale = np.float32(size) / np.float32(wanted)
    return (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * scale


def _nearest(size: int, wanted: int) -> Array:
    return np.minimum(np.floor(_places(size, wanted)).astype(np.int64), size - 1)


def _between(size: int, wanted: int) -> tuple[Array, Array, Array]:
    at = _places(size, wanted) - np.float32(0.5)
    below = np.floor(at)
    first = np.maximum(below.astype(np.int64), 0)
    second = np.minimum(np.ceil(at).astype(np.int64), size - 1)
    return first, second, at - below


def _crop(item: Array, told: Told) -> Array:
    image, height, width = _image(item, "crop"), told["height"], told["width"]
    if image.shape[0] < height or image.shape[1] < width:
        raise ValueError(f"crop to {height} x {width}: the image is {image.shape[0]} x {image.shape[1]}")
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _letterbox(item: Array, told: Told) -> Array:
    image, height, width = _image(item, "letterbox"), told["height"], told["width"]
    # In integers, so that no machine rounds another way: which side is the tight one, and the other to the nearest.
    if image.shape[0] * width >= image.shape[1] * height:
        inner = height, max(1, (2 * image.shape[1] * height + image.shape[0]) // (2 * image.shape[0]))
    else:
        inner = max(1, (2 * image.shape[0] * width + image.shape[1]) // (2 * image.shape[1])), width
    framed = np.full((height, width, image.shape[2]), told["fill"], np.float32)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    framed[top : top + inner[0], left : left + inner[1]] = resize(image, *inner, "bilinear")
    return framed


def _cast(item: Array, told: Told) -> Array:
    return cast(item, told["dtype"])


def cast(item: Array, dtype: str) -> Array:
    """An item in another element type: to integers rounded to the nearest (ties to even) and clipped."""
    wanted = np.dtype(dtype)
    if wanted.kind in "iu" and item.dtype.kind in "iuf" and not np.can_cast(item.dtype, wanted):
        limits = np.iinfo(wanted)
        rounded = np.rint(item) if item.dtype.kind == "f" else item
        return np.clip(rounded, limits.min, limits.max).astype(wanted)
    return item.astype(wanted, copy=False)


def _normalise(item: Array, told: Told) -> Array:
    mean, std = (np.asarray(told[name], np.float32) for name in ("mean", "std"))
    for numbers in (mean, std):
        if len(numbers) != 1 and (not item.ndim or len(numbers) != item.shape[-1]):
            raise ValueError(f"normalise has {len(numbers)} numbers, the item is {item.shape}")
    values: Array = (item.astype(np.float32) * np.float32(told["scale"]) - mean) / std
    return values.reshape(item.shape)


def _layout(item: Array, told: Told) -> Array:
    image = _image(item, "layout")
    return image.transpose(2, 0, 1) if told["to"] == "CHW" else image.transpose(1, 2, 0)


def _softmax(item: Array, _: Told) -> Array:
    powers = np.exp(item.astype(np.float32) - item.max(axis=-1, keepdims=True).astype(np.float32))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True, dtype=np.float32)
    return shares


def _sigmoid(item: Array, _: Told) -> Array:
    small = np.exp(-np.abs(item.astype(np.float32)))  # of the absolute value, which cannot overflow
    return np.where(item >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def _argmax(item: Array, _: Told) -> Array:
    return np.asarray(item.argmax(axis=-1), np.int64)


def _top_k(item: Array, told: Told) -> Array:
    if not item.ndim or item.shape[-1] < told["k"]:
        raise ValueError(f"top_k wants {told['k']} values, the item is {item.shape}")
    # Stable on the negated values: of equal ones the first comes first. Unsigned integers cannot be negated.
    keys = -(item.astype(np.int64) if item.dtype.kind in "iub" else item)
    order = np.argsort(keys, axis=-1, kind="stable")[..., : told["k"]].astype(np.int64)
    return order if told["part"] == "index" else np.take_along_axis(item, order, axis=-1)


def _threshold(item: Array, told: Told) -> Array:
    return np.asarray(item >= told["at"])


def _named(item: Array, labels: Sequence[str]) -> Array:
    """Labels of places, an array of str objects; a place without a label is named by its number."""
    if item.dtype.kind not in "iub":
        raise ValueError(f"labels are chosen by whole numbers, the item is {item.dtype}")
    names = [labels[place] if 0 <= place < len(labels) else str(place) for place in map(int, item.reshape(-1))]
    named = np.empty(len(names), object)
    named[:] = names
    return named.reshape(item.shape)


_STEPS: dict[str, Callable[[Array, Told], Array]] = {
    "resize": _resize,
    "crop": _crop,
    "letterbox": _letterbox,
    "cast": _cast,
    "normalise": _normalise,
    "layout": _layout,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "argmax": _argmax,
    "top_k": _top_k,
    "threshold": _threshold,
}
