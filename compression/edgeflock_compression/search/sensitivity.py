"""How much each layer minds each option: a `.tflite` in which only that layer is changed, on items to validate with.

int8 and int4 are LiteRT's own (dynamic), so that bytes, latency and memory are those of the changed file. Zeros, shared
and ternary values are put into the float file without training; this runtime keeps them as dense floats, so that they
save on the wire only. Batch norm is folded into the weights already, as the converter does it; such an operator bears
several layers in its name, and is called after the one whose kernel it holds, because recipes speak of kernels.

`python -m edgeflock_compression.search.sensitivity` is a worker (see `edgeflock_compression.worker`): beside the order
it reads `done`, the (layer, option) that are known; it writes `{"row": {...}}` for each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from edgeflock_compression.making import Order
from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.proof.metrics import Metric, metric_named
from edgeflock_compression.search.proposals import Row
from edgeflock_compression.search.weight_options import FEWEST, ON_WEIGHTS, changed_weights
from edgeflock_compression.tflite.float_left import Operator, operators
from edgeflock_compression.tflite.layer_names import layers_in
from edgeflock_compression.tflite.wire_estimate import wire_estimate

Array = NDArray[Any]

MODULE = "edgeflock_compression.search.sensitivity"
ITEMS = 1024
_QUANTIZED: tuple[Literal["int8", "int4"], ...] = ("int8", "int4")
BASELINE_FILE = "float32.tflite"
_LOOKS_S = 0.05  # between two looks whether a file was taken away
_DENSE = "the runtime keeps dense floats: no faster, no smaller in memory"


_Found = tuple[Row, Path | None]


@dataclass(frozen=True)
class _Measured:
    value: float
    raw: int
    wire: int
    ram: int | None
    path: Path


@dataclass(frozen=True)
class _Table:
    """What all rows share."""

    folder: Path
    names: Sequence[str]
    x: Arrays
    y: Array
    metric: Metric

    def measure(self, tflite: bytes, name: str, memory: bool) -> _Measured:
        from edgeflock_compression.variant import outputs_over
        from edgeflock_deploy.peak_memory import peak_rss_bytes

        path = self.folder / name
        path.write_bytes(tflite)
        value = self.metric.value(outputs_over(path, self.x, self.names), self.y)
        ram = peak_rss_bytes(path).peak_rss_bytes if memory else None
        return _Measured(value, len(tflite), wire_estimate(tflite), ram, path)

    def lost(self, before: float, after: float) -> float:
        """In the metric's unit, as in a certificate."""
        loss = before - after if self.metric.larger_is_better else after - before
        if self.metric.unit == "pt":
            return 100 * loss
        return 100 * loss / abs(before) if self.metric.unit == "%" and before else loss


def rows_of(
    order: Order, done: set[tuple[str, str]], folder: Path, tell: Callable[[str, float], None]
) -> Iterator[tuple[Row, Path | None]]:
    """The rows of the table that are not known yet, layer by layer, without latency.

    Beside a row stands its file where the latency may differ from that of the baseline, `BASELINE_FILE` in the folder.

    Args:
        order: the model, the data, the metric.
        done: (layer, option) of the rows that are.
        folder: for the files.
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
    work = Work(Bench(parent, parts, order.seed), parent.model)
    kernels = kernel_layers(work)
    float32 = _float32(work)
    weights = weights_by_layer(float32, kernels)
    todo = [
        (layer, option)
        for layer in weights
        for option in [*_QUANTIZED, *(ON_WEIGHTS if layer in kernels else ())]
        if (layer, option) not in done
    ]
    table = _Table(folder, [spec.name for spec in parent.inputs], x, y, metric)
    before = table.measure(float32, BASELINE_FILE, memory=True) if todo else None
    for n, (layer, option) in enumerate(todo):
        assert before is not None
        tell(f"sensitivity: {layer} {option}", n / len(todo))
        try:
            yield _row(table, float32, before, weights[layer], layer, option)
        except Exception as error:  # the quantizer raises errors of many kinds; one option must not end the table
            yield Row(layer, option, None, 0, 0, 0.0, 0, " ".join(str(error).split())[:200]), None


def weights_by_layer(tflite: bytes, kernels: frozenset[str]) -> dict[str, frozenset[str]]:
    """The weight tensors of a file by the layer that they belong to, in the file's order.

    Args:
        tflite: the file.
        kernels: the layers of the model that hold kernels; empty for one made elsewhere.
    """
    found: dict[str, frozenset[str]] = {}
    for one in operators(tflite):
        if one.takes_weights:
            named = (layer for name in (one.weight, *one.outputs) for layer in layers_in(name))
            layer = next((layer for layer in named if layer in kernels), one.layer)
            found[layer] = found.get(layer, frozenset()) | {one.weight}
    return found


def kernel_layers(work: Any) -> frozenset[str]:
    """The layers with kernels that passes on weights treat; none in a model without layers."""
    from edgeflock_compression.weights.targets import WeightPass, targets

    if work.model is None:
        return frozenset()
    return frozenset(target.path.split("/")[0] for target in targets(work, WeightPass(min_size=FEWEST))[0])


def _float32(work: Any) -> bytes:
    from edgeflock_compression.tflite.converter import convert
    from edgeflock_compression.tflite.foreign import with_signature

    given = work.bench.parent.tflite
    return convert(work, "float32") if given is None else with_signature(given)


def _row(table: _Table, float32: bytes, before: _Measured, weights: frozenset[str], layer: str, option: str) -> _Found:
    if option not in ON_WEIGHTS:
        return _quantized_row(table, float32, before, weights, layer, option)
    changed = changed_weights(float32, weights, ON_WEIGHTS[option])
    if changed is None:
        return Row(layer, option, None, 0, 0, 0.0, 0, f"its weights have fewer than {FEWEST} elements"), None
    after = table.measure(changed, "changed.tflite", memory=False)
    lost = table.lost(before.value, after.value)
    return Row(layer, option, lost, 0, before.wire - after.wire, 0.0, 0, _DENSE), None


def _quantized_row(
    table: _Table, float32: bytes, before: _Measured, weights: frozenset[str], layer: str, option: str
) -> _Found:
    from edgeflock_compression.quantization.per_layer import quantize

    def becomes(operator: Operator) -> Any:
        return option if operator.weight in weights else "float"

    made, skipped = quantize(float32, "dynamic", becomes, lambda _: False)
    if skipped:
        return Row(layer, option, None, 0, 0, 0.0, 0, skipped[0].reason), None
    after = table.measure(made, "changed.tflite", memory=True)
    ram = before.ram - after.ram if before.ram is not None and after.ram is not None else 0
    lost = table.lost(before.value, after.value)
    row = Row(layer, option, lost, before.raw - after.raw, before.wire - after.wire, 0.0, ram, None)
    return row, after.path


def main() -> None:
    """Take the order from standard input and write the rows.

    After a row with a file it waits until that is taken away: whoever measures its latency is not to be disturbed.
    """
    from edgeflock_compression.worker import Say, order_of, speaking

    def rows(value: dict[str, Any], say: Say) -> None:
        done = {(layer, option) for layer, option in value["done"]}
        folder = Path(value["folder"])
        for row, file in rows_of(order_of(value["order"]), done, folder, lambda what, share: say(tell=(what, share))):
            say(row=(row._asdict(), file and file.name))
            while file and file.exists():
                time.sleep(_LOOKS_S)

    speaking(rows)


if __name__ == "__main__":
    main()
