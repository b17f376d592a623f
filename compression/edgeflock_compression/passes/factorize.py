"""`factorize`: a dense layer or a convolution as two or three smaller ones, of low rank.

| method  | of           | becomes                                   | source                                 |
|---------|--------------|-------------------------------------------|----------------------------------------|
| svd     | Dense        | Dense(r), Dense(n)                        | Denton et al. 2014 (arXiv:1404.0736)   |
| spatial | Conv1D/2D    | (h x 1, r), (1 x w, n)                    | Jaderberg et al. 2014 (arXiv:1405.3866)|
| tucker2 | Conv1D/2D/3D | (1 x 1, r_in), (h x w, r_out), (1 x 1, n) | Kim et al. 2016 (arXiv:1511.06530)     |

The last of the new layers has the bias and the activation of the old one; the others are linear and without bias. A
layer is replaced only where that takes multiply-adds away, then the whole model is fine-tuned. The layer of the outputs
stays if it has no more outputs than inputs: a digits net at half its multiply-adds lost 33 points with its ten classes
at rank 3, and half a point without. It helps latency, raw bytes and wire bytes. How a kernel is split is in `low_rank`,
which rank is chosen in `rank_choice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from edgeflock_compression.graph.flat import rebuild
from edgeflock_compression.graph.macs import Use, multiply_adds, positions, uses
from edgeflock_compression.tf_import import keras
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import held, kept
from edgeflock_compression.weights.low_rank import (
    kept_by_spatial,
    kept_by_svd,
    kept_by_tucker2,
    spatial,
    svd_dense,
    tucker2,
)
from edgeflock_compression.weights.rank_choice import Option, Ranks, by_target, front, keeping, within
from edgeflock_compression.work import Skipped, Work

Array = NDArray[Any]
_ENERGY = 0.9


class Settings(FineTune):
    """Settings of the pass. One of `energy`, `ratio` and `target` sets the ranks; an energy of 0.9 if none does."""

    method: Literal["auto", "svd", "spatial", "tucker2"] = "auto"  # auto: for each layer what needs less for the same
    energy: float | None = Field(None, gt=0, le=1)  # share of the sum of squared weights to keep in each layer
    ratio: float | None = Field(None, gt=0, lt=1)  # share of each layer's multiply-adds to keep at most
    target: float | None = Field(None, gt=0, lt=1)  # share of the whole model's multiply-adds to keep at most

    @model_validator(mode="after")
    def _one_rule(self) -> Settings:
        if sum(rule is not None for rule in (self.energy, self.ratio, self.target)) > 1:
            raise ValueError("give one of energy, ratio and target, not several")
        return self


def factorize(work: Work, settings: Settings) -> Work:
    """Replace the layers where it is worth it, then fine-tune; where it is worth it nowhere the model stays as it was.

    Raises:
        BadInput: not even rank 1 everywhere reaches `target`.
    """
    before = multiply_adds(work.model)
    by_layer: dict[str, list[Use]] = {}
    for use in uses(work.model):
        by_layer.setdefault(use.layer.name, []).append(use)
    last = _last_layers(work.model)
    reasons = {name: _untreatable(work, by_layer[name][0].layer, settings, last) for name in before}
    fronts = {
        name: front([_ranks(by_layer[name], method) for method in _methods(by_layer[name][0].layer, settings)], count)
        for name, count in before.items()
        if reasons[name] is None
    }
    chosen = _chosen(fronts, before, settings)
    skipped = (
        Skipped(layer=name, reason=reason or _left(bool(fronts[name]), settings))
        for name, reason in reasons.items()
        if name not in chosen
    )
    work = work.skipping(*skipped)
    if chosen:
        work = replace(work, model=_replaced(work.model, chosen))
        trained = fine_tune(work.model, work.bench, settings, held(work), "factorize")
        first = {path: parameters[0] for path, parameters in trained.parameters.items()}
        work = replace(work, model=trained.model, codebooks=kept(work, first))
    return work.noting(
        "factorize",
        multiply_adds_before=sum(before.values()),
        multiply_adds_after=sum(multiply_adds(work.model).values()),
        layers={
            name: {"method": option.method, "ranks": list(option.ranks), "energy": round(option.energy, 4)}
            for name, option in chosen.items()
        },
    )


def _chosen(fronts: dict[str, list[Option]], before: dict[str, int], settings: Settings) -> dict[str, Option]:
    if settings.target is not None:
        return by_target(fronts, before, settings.target)
    chosen = {}
    for name, options in fronts.items():
        if settings.ratio is not None:
            chosen[name] = within(options, settings.ratio * before[name])
        else:
            chosen[name] = keeping(options, settings.energy or _ENERGY)
    return {name: option for name, option in chosen.items() if option is not None}


def _last_layers(model: Any) -> set[str]:
    """Names of the layers with weights from which the model's outputs come, by whatever has none in between."""
    names = set()
    for tensor in model.outputs:
        history = tensor._keras_history
        while not getattr(history.operation, "weights", []):
            given = history.operation._inbound_nodes[history.node_index].input_tensors
            if len(given) != 1:
                break
            history = given[0]._keras_history
        names.add(history.operation.name)
    return names


def _untreatable(work: Work, layer: Any, settings: Settings, last: set[str]) -> str | None:
    layers, kind = keras().layers, type(layer)
    if kind not in (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D):
        return f"is a {kind.__name__}: only dense layers and plain convolutions are factorized"
    if not _methods(layer, settings):
        return f"is a {kind.__name__}, which {settings.method} does not treat"
    if getattr(layer, "groups", 1) > 1:
        return f"its channels are in {layer.groups} groups"
    if any(weight.path in work.masks or weight.path in work.codebooks for weight in layer.weights):
        return "an earlier pass holds values of its weights"
    given, out = layer.kernel.shape[-2:]
    if layer.name in last and out <= given:
        return f"the model's {out} outputs come from it, and a lower rank would tie them together"
    return None


def _left(has_options: bool, settings: Settings) -> str:
    if not has_options:
        return "even rank 1 needs no fewer multiply-adds"
    if settings.target is not None:
        return "the target is reached without it"
    if settings.ratio is not None:
        return f"even rank 1 needs more than {settings.ratio:g} of its multiply-adds"
    return f"to keep {settings.energy or _ENERGY:g} of its energy takes no fewer multiply-adds"


def _methods(layer: Any, settings: Settings) -> list[str]:
    layers = keras().layers
    able = {
        layers.Dense: ["svd"],
        layers.Conv1D: ["spatial", "tucker2"],
        layers.Conv2D: ["spatial", "tucker2"],
        layers.Conv3D: ["tucker2"],
    }[type(layer)]
    return [method for method in able if settings.method in ("auto", method)]


def _ranks(used: Sequence[Use], method: str) -> Ranks:
    """What each rank keeps, and what it needs over all uses of the layer."""
    layer = used[0].layer
    kernel = np.asarray(layer.kernel)
    *window, given, out = kernel.shape
    if method == "svd":
        energy = kept_by_svd(kernel)
        per_rank = sum(prod(use.input[:-1]) for use in used) * (given + out)
        return Ranks(method, energy, per_rank * np.arange(1, len(energy) + 1))
    before = sum(positions(layer, use.input) for use in used)
    after = sum(positions(layer, use.output) for use in used)
    if method == "spatial":
        height, width = _plane(kernel).shape[:2]
        energy = kept_by_spatial(_plane(kernel))
        per_rank = height * given * sum(_between(use, width) for use in used) + width * out * after
        return Ranks(method, energy, per_rank * np.arange(1, len(energy) + 1))
    ins, outs = np.arange(1, given + 1)[:, None], np.arange(1, out + 1)
    counts = before * given * ins + after * (prod(window) * ins * outs + out * outs)
    return Ranks(method, kept_by_tucker2(kernel), counts)


def _plane(kernel: Array) -> Array:
    """The kernel of a one- or two-dimensional convolution as (h, w, in, out)."""
    return kernel[:, None] if kernel.ndim == 3 else kernel


def _between(use: Use, width: int) -> int:
    """Positions between the two layers of `spatial`: as high as the output; a horizontal layer has yet to narrow it."""
    if width == 1:
        return positions(use.layer, use.output)
    at = 1 if use.layer.data_format == "channels_first" else 0
    return use.output[at] * use.input[at + 1]


def _replaced(model: Any, chosen: dict[str, Option]) -> Any:
    taken = {layer.name for layer in model.layers}
    kernels: list[tuple[Any, Any, Array]] = []

    def change(layer: Any) -> list[Any] | None:
        if layer.name not in chosen:
            return None
        pieces = _pieces(layer, chosen[layer.name])
        new = []
        for n, (what, kernel) in enumerate(pieces):
            last = n == len(pieces) - 1
            name = _free(f"{layer.name}_{'in' if n == 0 else 'out' if last else 'core'}", taken)
            config = {**layer.get_config(), "name": name, "kernel_regularizer": None, "kernel_constraint": None, **what}
            new.append(type(layer).from_config(config if last else config | _LINEAR))
            new[-1].trainable = layer.trainable
            kernels.append((layer, new[-1], kernel))
        return new

    rebuilt = rebuild(model, change)
    for old, layer, kernel in kernels:
        layer.set_weights([kernel, np.asarray(old.bias)] if layer.use_bias else [kernel])
    return rebuilt


_LINEAR = {"activation": "linear", "use_bias": False, "activity_regularizer": None}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _pieces(layer: Any, option: Option) -> list[tuple[dict[str, Any], Array]]:
    """Of each new layer what differs from the old one's configuration, and its kernel."""
    kernel = np.asarray(layer.kernel)
    if option.method == "svd":
        left, right = svd_dense(kernel, *option.ranks)
        return [({"units": left.shape[1]}, left), ({}, right)]
    ones = (1,) * (kernel.ndim - 2)
    if option.method == "tucker2":
        into, core, out = tucker2(kernel, *option.ranks)
        point = {"kernel_size": ones, "strides": ones, "dilation_rate": ones}
        return [
            ({"filters": into.shape[1], **point}, into.reshape(*ones, *into.shape)),
            ({"filters": core.shape[-1]}, core),
            (point, out.reshape(*ones, *out.shape)),
        ]
    vertical, horizontal = spatial(_plane(kernel), *option.ranks)
    if kernel.ndim == 3:
        return [
            ({"filters": vertical.shape[-1]}, vertical[:, 0]),
            ({"kernel_size": ones, "strides": ones, "dilation_rate": ones}, horizontal[0]),
        ]
    (down, right), (far_down, far_right) = layer.strides, layer.dilation_rate
    first = (down, 1) if kernel.shape[1] > 1 else (down, right)  # a pointwise second layer has nothing to stride over
    return [
        (
            {"filters": vertical.shape[-1], "kernel_size": vertical.shape[:2], "strides": first}
            | {"dilation_rate": (far_down, 1)},
            vertical,
        ),
        (
            {"kernel_size": horizontal.shape[:2], "strides": (1, right if kernel.shape[1] > 1 else 1)}
            | {"dilation_rate": (1, far_right)},
            horizontal,
        ),
    ]
