"""How much each layer minds each option: a `.tflite` in which only that layer is changed, on items to validate with.

int8 and int4 are LiteRT's own (dynamic), so that bytes, latency and memory are those of the changed file. Zeros, shared
and ternary values are put into the float file without training; this runtime keeps them as dense floats, so that they
save on the wire only. Batch norm is folded into the weights already, as the converter does it.

`python -m edgeflock_compression.search.sensitivity` is a worker (see `edgeflock_compression.worker`): beside the order
it reads `done`, the (layer, option) that are known; it writes `{"row": {...}}` for each other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.making import Order
from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.proof.metrics import Metric, metric_named
from edgeflock_compression.search.probe import Latency, LocalProbe
from edgeflock_compression.search.proposals import Row
from edgeflock_compression.tflite.float_left import Operator, operators
from edgeflock_compression.tflite.wire_estimate import wire_estimate
from edgeflock_compression.weights.kmeans import kmeans, nearest
from edgeflock_compression.weights.sparsity import magnitude_masks

Array = NDArray[Any]

MODULE = "edgeflock_compression.search.sensitivity"
ITEMS = 1024
_QUANTIZED: tuple[Literal["int8", "int4"], ...] = ("int8", "int4")
_FEWEST = 64  # elements of a weight that weight passes treat
_DENSE = "the runtime keeps dense floats: no faster, no smaller in memory"
_TERNARY_THRESHOLD = 0.7  # of the mean magnitude (Li et al. 2016, arXiv:1605.04711)


def pruned(share: float) -> Callable[[Array], Array]:
    """A share of a weight's elements, the smallest, becomes zero."""
    return lambda weight: weight * magnitude_masks({"": weight}, share, "layer")[""]


def clustered(count: int) -> Callable[[Array], Array]:
    """The elements take `count` values."""

    def change(weight: Array) -> Array:
        values = kmeans(weight.ravel(), count)
        return np.asarray(values[nearest(weight.ravel(), values)].reshape(weight.shape))

    return change


def ternary(weight: Array) -> Array:
    """The elements become -a, 0 or a."""
    beyond = np.abs(weight) > _TERNARY_THRESHOLD * np.abs(weight).mean()
    size = np.abs(weight[beyond]).mean() if beyond.any() else 0.0
    return np.asarray(np.sign(weight) * beyond * size)


ON_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "prune50": pruned(0.5),
    "prune80": pruned(0.8),
    "prune90": pruned(0.9),
    "cluster32": clustered(32),
    "cluster16": clustered(16),
    "ternary": ternary,
}


@dataclass(frozen=True)
class _Measured:
    value: float
    raw: int
    wire: int
    path: Path


@dataclass(frozen=True)
class _Table:
    """What all rows share."""

    folder: Path
    names: Sequence[str]
    x: Arrays
    y: Array
    metric: Metric

    def measure(self, tflite: bytes, name: str) -> _Measured:
        from edgeflock_compression.variant import outputs_over

        path = self.folder / f"{name}.tflite"
        path.write_bytes(tflite)
        value = self.metric.value(outputs_over(path, self.x, self.names), self.y)
        return _Measured(value, len(tflite), wire_estimate(tflite), path)

    def lost(self, before: float, after: float) -> float:
        """In the metric's unit, as in a certificate."""
        loss = before - after if self.metric.larger_is_better else after - before
        if self.metric.unit == "pt":
            return 100 * loss
        return 100 * loss / abs(before) if self.metric.unit == "%" and before else loss


def rows_of(order: Order, done: set[tuple[str, str]], tell: Callable[[str, float], None]) -> Iterator[Row]:
    """The rows of the table that are not known yet, layer by layer.

    Args:
        order: the model, the data, the metric.
        done: (layer, option) of the rows that are.
        tell: says how far it is.
    """
    from edgeflock_compression.parent.data import fit, load_data
    from edgeflock_compression.parent.source import open_parent
    from edgeflock_compression.parent.split import split, stratified, task_of
    from edgeflock_compression.tf_import import deterministic
    from edgeflock_compression.work import Bench, Work

    loaded = load_data(order.data)
    deterministic(order.threads)
    parent = open_parent(order.model)
    data = fit(loaded, parent.inputs)
    parts = split(data, order.seed)
    chosen = stratified(parts.y_validation, ITEMS, order.seed)
    x, y = tuple(part[chosen] for part in parts.x_validation), parts.y_validation[chosen]
    metric = metric_named(order.metric or task_of(data, None).metric)
    float32 = _float32(Work(Bench(parent, parts, order.seed), parent.model))
    layers = layers_of(float32)
    options = [*_QUANTIZED, *(ON_WEIGHTS if parent.model is not None else ())]
    todo = [(layer, option) for layer in layers for option in options if (layer, option) not in done]
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as folder:
        table = _Table(Path(folder), [spec.name for spec in parent.inputs], x, y, metric)
        before = table.measure(float32, "float32") if todo else None
        for n, (layer, option) in enumerate(todo):
            assert before is not None
            tell(f"sensitivity: {layer} {option}", n / len(todo))
            try:
                yield _row(table, float32, before, layer, option)
            except Exception as error:  # the quantizer raises errors of many kinds; one option must not end the table
                yield Row(layer, option, None, 0, 0, 0.0, 0, " ".join(str(error).split())[:200])


def layers_of(tflite: bytes) -> list[str]:
    """The layers that hold weights, in the file's order."""
    return list(dict.fromkeys(one.layer for one in operators(tflite) if one.takes_weights))


def _float32(work: Any) -> bytes:
    from edgeflock_compression.tflite.converter import convert
    from edgeflock_compression.tflite.foreign import with_signature

    given = work.bench.parent.tflite
    return convert(work, "float32") if given is None else with_signature(given)


def _row(table: _Table, float32: bytes, before: _Measured, layer: str, option: str) -> Row:
    if option not in ON_WEIGHTS:
        return _quantized_row(table, float32, before, layer, option)
    changed = changed_weights(float32, layer, ON_WEIGHTS[option])
    if changed is None:
        return Row(layer, option, None, 0, 0, 0.0, 0, f"its weights have fewer than {_FEWEST} elements")
    after = table.measure(changed, "changed")
    lost = table.lost(before.value, after.value)
    return Row(layer, option, lost, 0, before.wire - after.wire, 0.0, 0, _DENSE)


def _quantized_row(table: _Table, float32: bytes, before: _Measured, layer: str, option: str) -> Row:
    from edgeflock_compression.quantization.per_layer import quantize
    from edgeflock_deploy.peak_memory import peak_rss_bytes

    def weights(operator: Operator) -> Any:
        return option if operator.layer == layer else "float"

    made, skipped = quantize(float32, "dynamic", weights, lambda _: False)
    if skipped:
        return Row(layer, option, None, 0, 0, 0.0, 0, skipped[0].reason)
    after = table.measure(made, "changed")
    took: Latency | None = LocalProbe().latency(after.path, before.path)
    memory = [peak_rss_bytes(one.path).peak_rss_bytes for one in (before, after)]
    ram = memory[0] - memory[1] if memory[0] is not None and memory[1] is not None else 0
    saved_us = 0.0 if took is None else 1000 * took.baseline_ms_p50 * (1 - took.ratio)
    lost = table.lost(before.value, after.value)
    return Row(layer, option, lost, before.raw - after.raw, before.wire - after.wire, saved_us, ram, None)


def changed_weights(tflite: bytes, layer: str, change: Callable[[Array], Array]) -> bytes | None:
    """The same file with the float weights of one layer changed; None if it has none worth it."""
    from tensorflow.lite.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    names = {one.weight for one in operators(tflite) if one.takes_weights and one.layer == layer and one.float_weight}
    found = False
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.name.decode() not in names or data is None or len(data) < 4 * _FEWEST:
                continue
            weight = np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
            new = np.ascontiguousarray(change(weight), np.float32)
            model.buffers[tensor.buffer].data = np.frombuffer(new.tobytes(), np.uint8)
            found = True
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)) if found else None


def main() -> None:
    """Take the order from standard input and write the rows."""
    from edgeflock_compression.worker import Say, order_of, speaking

    def rows(value: dict[str, Any], say: Say) -> None:
        done = {(layer, option) for layer, option in value["done"]}
        for row in rows_of(order_of(value["order"]), done, lambda what, share: say(tell=(what, share))):
            say(row=row._asdict())

    speaking(rows)


if __name__ == "__main__":
    main()
