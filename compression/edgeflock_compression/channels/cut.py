"""The cut itself: a model without the channels that are not kept, and what is held about its weights cut alike.

Decided here: how layers are made smaller. `groups` says which axis of which weight goes with which channels; this
slices them and rebuilds every layer concerned with fewer filters or units. It does not choose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.channels.groups import Channels, Keep
from edgeflock_compression.channels.ties import Labels
from edgeflock_compression.graph.flat import rebuild, weights_by_path
from edgeflock_compression.work import Codebook, Work

Array = NDArray[Any]


def cut_model(model: Any, channels: Channels, keep: Keep) -> Any:
    """A new model without some channels; layers keep their names, and the weights left keep their values.

    Args:
        model: flat functional model.
        channels: what `find_channels` said about it.
        keep: by label, whether the channel stays; each layer must keep one at least.
    """
    touched = {name for name, site in channels.sites.items() if not all(keep[of].all() for of in _labels(site))}

    def change(layer: Any) -> list[Any] | None:
        if layer.name not in touched:
            return None
        sizes = channels.sites[layer.name].sizes
        return [_resized(layer, {setting: int(keep[labels].sum()) for setting, labels in sizes.items()})]

    new, old = rebuild(model, change), weights_by_path(model)
    axes = _axes(channels)
    for variable in new.weights:  # of the touched layers all, also what goes with no channel: a recurrent kernel
        variable.assign(_sliced(old[variable.path], axes.get(variable.path, {}), keep))
    return new


def cut(work: Work, channels: Channels, keep: Keep) -> Work:
    """The work with channels removed from its model, its masks and its codebooks."""
    axes = _axes(channels)
    return replace(
        work,
        model=cut_model(work.model, channels, keep),
        masks={path: _sliced(mask, axes.get(path, {}), keep) for path, mask in work.masks.items()},
        codebooks={path: _sliced_book(book, axes.get(path, {}), keep) for path, book in work.codebooks.items()},
    )


def _resized(layer: Any, sizes: Mapping[str, int]) -> Any:
    """An unbuilt layer like the one given, with other counts in its settings."""
    config = layer.get_config()
    for setting, count in sizes.items():
        if setting == "target_shape":
            config[setting] = (*layer.output.shape[1:-1], count)
        elif setting == "build_config":
            for inner in (part for part in config.values() if isinstance(part, dict) and setting in part):
                inner[setting] = {"input_shape": (*inner[setting]["input_shape"][:-1], count)}
        else:
            config[setting] = count
    return layer.__class__.from_config(config)


def _labels(site: Any) -> list[Labels]:
    return [*site.sizes.values(), *(labels for axes in site.axes.values() for labels in axes.values())]


def _axes(channels: Channels) -> dict[str, Mapping[int, Labels]]:
    return {path: axes for site in channels.sites.values() for path, axes in site.axes.items()}


def _sliced(array: Array, axes: Mapping[int, Labels], keep: Keep) -> Array:
    for axis, labels in axes.items():
        array = np.compress(keep[labels], array, axis=axis)
    return array


def _sliced_book(book: Codebook, axes: Mapping[int, Labels], keep: Keep) -> Codebook:
    codes, last = _sliced(book.codes, axes, keep), book.codes.ndim - 1
    per_channel = book.values.ndim == 2 and last in axes
    values = book.values[:, keep[axes[last]]] if per_channel else book.values
    return replace(book, codes=codes, values=values, hashed=book.hashed if codes.shape == book.codes.shape else None)
