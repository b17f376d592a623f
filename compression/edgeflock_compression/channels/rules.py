"""How channels pass through each kind of layer: what makes them, what carries them on, what ties them.

Decided here: one rule per kind of layer, in one table. A rule takes the labels of the inputs and gives those of the
output; it says which axis of which weight goes with which labels. Channels are always the last axis. A layer without a
rule needs all channels it is given. What a cut does with this stands in `groups` and `cut`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeflock_compression.channels.ties import Labels, Ties

# Activations that treat each channel alone: others (softmax) see all of them, so that none can go unnoticed.
_ALONE = frozenset(
    {"celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh", "leaky_relu"}
    | {"linear", "log_sigmoid", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softplus"}
    | {"softsign", "squareplus", "tanh", "tanh_shrink", "threshold", "ELU", "LeakyReLU", "ReLU"}
)


class Whole(Exception):
    """Not an error: the layer needs all the channels that it is given; the message says why."""


@dataclass
class Site:
    """A layer whose weights or settings go with channels.

    Args:
        layer: the layer.
        axes: by weight path, by axis of the weight, the labels along it.
        sizes: by name of a setting of the layer (`filters`), the labels that it counts.
        kernel: path of the weight that makes new channels, None for a layer that only carries them on.
        kernel_axis: the kernel's axis of the channels made.
        bias: path of the bias of the channels made.
        whole: why the layer itself has to keep its channels.
    """

    layer: Any
    axes: dict[str, dict[int, Labels]] = field(default_factory=dict)
    sizes: dict[str, Labels] = field(default_factory=dict)
    kernel: str | None = None
    kernel_axis: int = -1
    bias: str | None = None
    whole: str | None = None

    @property
    def made(self) -> Labels:
        """Labels of the channels that the layer makes; only for one that makes some."""
        assert self.kernel is not None
        return self.axes[self.kernel][self.kernel_axis]


@dataclass(frozen=True)
class Call:
    """One use of a layer or operation in the graph.

    Args:
        ties: where channels are made and tied.
        site: what the rule writes down about the layer.
        layer: the layer or operation.
        given: labels of each input.
        shapes: shape of each input, with the batch.
        gives: shape of the first output, with the batch.
        constants: what it is called with besides tensors of the graph.
    """

    ties: Ties
    site: Site
    layer: Any
    given: Sequence[Labels]
    shapes: Sequence[tuple[int | None, ...]]
    gives: tuple[int | None, ...]
    constants: Sequence[Any]

    def weights(self, *known: str) -> dict[str, str]:
        """Paths of the layer's weights by name; refuses the layer if it has others than those known."""
        paths = {variable.name: variable.path for variable in self.layer.weights}
        if len(paths) != len(self.layer.weights) or set(paths) - set(known):
            raise Whole("it holds weights of an unknown kind")
        return paths

    def makes(self, setting: str, count: int) -> Labels:
        """New channels, as many as the layer's setting says; whole if its activation looks at all of them."""
        made = self.ties.fresh(count)
        self.site.sizes[setting] = made
        name = _activation(self.layer)
        if name not in _ALONE:
            self.site.whole = f"its activation {name} looks at all channels together"
            self.ties.leave_whole(made, self.site.whole)
        return made


Rule = Callable[[Call], "Labels | None"]


def _dense(call: Call) -> Labels:
    paths = call.weights("kernel", "bias")
    return _made_by(call, paths, "units", call.layer.units, {0: call.given[0]}, 1)


def _convolution(call: Call) -> Labels:
    if call.layer.groups != 1:
        raise Whole("its channels are convolved in groups")
    last = len(call.shapes[0]) - 1
    paths = call.weights("kernel", "bias")
    return _made_by(call, paths, "filters", call.layer.filters, {last - 1: call.given[0]}, last)


def _transposed_convolution(call: Call) -> Labels:
    last = len(call.shapes[0]) - 1
    paths = call.weights("kernel", "bias")
    return _made_by(call, paths, "filters", call.layer.filters, {last: call.given[0]}, last - 1)


def _separable_convolution(call: Call) -> Labels:
    paths = call.weights("depthwise_kernel", "pointwise_kernel", "bias")
    rank = len(call.shapes[0])
    call.site.axes[paths["depthwise_kernel"]] = {rank - 2: call.given[0]}
    spread = np.repeat(call.given[0], call.layer.depth_multiplier)
    pointwise = {"kernel": paths["pointwise_kernel"]} | {k: p for k, p in paths.items() if k == "bias"}
    return _made_by(call, pointwise, "filters", call.layer.filters, {rank - 2: spread}, rank - 1)


def _made_by(
    call: Call, paths: Mapping[str, str], setting: str, count: int, taken: dict[int, Labels], axis: int
) -> Labels:
    made = call.makes(setting, count)
    call.site.kernel, call.site.kernel_axis, call.site.bias = paths["kernel"], axis, paths.get("bias")
    call.site.axes[paths["kernel"]] = {**taken, axis: made}
    if "bias" in paths:
        call.site.axes[paths["bias"]] = {0: made}
    return made


def _depthwise_convolution(call: Call) -> Labels:
    if _activation(call.layer) not in _ALONE:
        raise Whole(f"its activation {_activation(call.layer)} looks at all channels together")
    paths = call.weights("kernel", "bias")
    call.site.axes[paths["kernel"]] = {len(call.shapes[0]) - 2: call.given[0]}
    carried = np.repeat(call.given[0], call.layer.depth_multiplier)
    if "bias" in paths:
        call.site.axes[paths["bias"]] = {0: carried}
    return carried


def _batch_norm(call: Call) -> Labels:
    if call.layer.axis not in (-1, len(call.shapes[0]) - 1):
        raise Whole("it does not normalise the last axis")
    for path in call.weights("gamma", "beta", "moving_mean", "moving_variance").values():
        call.site.axes[path] = {0: call.given[0]}
    return call.given[0]


def _prelu(call: Call) -> Labels:
    path = call.weights("alpha")["alpha"]
    shape = call.layer.alpha.shape
    if shape[-1] == len(call.given[0]):  # else one slope is shared by all channels
        call.site.axes[path] = {len(shape) - 1: call.given[0]}
    return call.given[0]


def _recurrent(call: Call) -> None:
    """Inputs may go; the units stay, since each gate sees all of them."""
    for labels in call.given[1:]:
        call.ties.leave_whole(labels, f"they start the state of '{call.layer.name}'")
    two_sided = type(call.layer).__name__ == "Bidirectional"
    layers = [call.layer.forward_layer, call.layer.backward_layer] if two_sided else [call.layer]
    cells = [layer.cell for layer in layers if type(layer).__name__ in ("SimpleRNN", "LSTM", "GRU")]
    if not cells:
        raise Whole("it wraps a layer of another kind")
    if two_sided:
        call.site.sizes["build_config"] = call.given[0]  # the two inner layers remember the shape of their input
    for cell in cells:
        call.site.axes[cell.kernel.path] = {0: call.given[0]}
    call.site.whole = "recurrent units are left whole"


def _carried(call: Call) -> Labels:
    if _activation(call.layer) not in _ALONE:
        raise Whole(f"{_activation(call.layer)} looks at all channels together")
    return call.given[0]


def _merged(call: Call) -> Labels:
    """Adding, multiplying, ...: channels at the same place are one; a single channel beside many serves them all."""
    if any(np.ndim(constant) and np.shape(constant)[-1] != 1 for constant in call.constants):
        raise Whole("it holds a constant for each channel")
    widest: Labels = max(call.given, key=len)
    for labels in call.given:
        if len(labels) == len(widest):
            call.ties.tie(widest, labels)
        elif len(labels) == 1:
            call.ties.leave_whole(labels, f"'{call.layer.name}' spreads it over all channels")
        else:
            raise Whole("its inputs have unlike channels")
    return widest


def _concatenated(call: Call) -> Labels:
    if call.layer.axis in (-1, len(call.gives) - 1):
        return np.concatenate(call.given)
    return _merged(call)


def _flattened(call: Call) -> Labels:
    return np.tile(call.given[0], _places(call.shapes[0]))


def _reshaped(call: Call) -> Labels:
    """Each place of the new last axis carries the channels that come to lie there, over all positions: they are one."""
    before, after = call.shapes[0], call.gives
    everywhere = np.tile(call.given[0], _places(before)).reshape(_places(after), -1)
    together: Labels = everywhere[0]
    for row in everywhere[1:]:
        call.ties.tie(together, row)
    call.site.sizes["target_shape"] = together
    return together


def _reduced(call: Call) -> Labels:
    """Mean, sum, maximum over positions."""
    axes = call.layer.axis
    if axes is None or any(axis in (-1, len(call.shapes[0]) - 1) for axis in axes):
        raise Whole("it reduces over channels")
    return call.given[0]


def _places(shape: Sequence[int | None]) -> int:
    """In how many places of an item a channel occurs."""
    count = 1
    for size in shape[1:-1]:
        if size is None:
            raise Whole("it reshapes an open dimension")
        count *= size
    return count


def _activation(layer: Any) -> str:
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else str(getattr(activation, "__name__", type(activation).__name__))


def _for_each(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_MERGES = "Add Subtract Multiply Maximum Minimum"

LAYER_RULES: Mapping[str, Rule] = {
    **_for_each(_dense, "Dense"),
    **_for_each(_convolution, "Conv1D Conv2D Conv3D"),
    **_for_each(_transposed_convolution, "Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    **_for_each(_separable_convolution, "SeparableConv1D SeparableConv2D"),
    **_for_each(_depthwise_convolution, "DepthwiseConv1D DepthwiseConv2D"),
    **_for_each(_batch_norm, "BatchNormalization"),
    **_for_each(_prelu, "PReLU"),
    **_for_each(_recurrent, "SimpleRNN LSTM GRU Bidirectional"),
    **_for_each(_merged, f"{_MERGES} Average"),
    **_for_each(_concatenated, "Concatenate"),
    **_for_each(_flattened, "Flatten"),
    **_for_each(_reshaped, "Reshape"),
    **_for_each(
        _carried,
        """Activation ELU LeakyReLU ReLU ActivityRegularization Identity RepeatVector
        Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D SpatialDropout3D
        MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
        GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
        GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
        ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D
        UpSampling1D UpSampling2D UpSampling3D""",
    ),
}

# Bare operations (`keras.ops`, `x + y`): they cannot be rebuilt, so none whose settings count channels.
OPERATION_RULES: Mapping[str, Rule] = {
    **_for_each(_merged, f"{_MERGES} Divide TrueDivide"),
    **_for_each(_concatenated, "Concatenate"),
    **_for_each(_reduced, "Mean Sum Max"),
    **_for_each(
        lambda call: call.given[0],
        """Abs Absolute Elu Gelu HardSigmoid HardSilu LeakyRelu Negative Relu Relu6 Selu Sigmoid Silu Softplus
        Square Tanh""",
    ),
}
