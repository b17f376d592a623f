"""Every compression pass, in the order in which a recipe may use them, and what each helps.

A new pass is one file beside this one and one line in `PASSES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from edgeflock_compression.passes import (
    binary,
    cluster,
    distill,
    factorize,
    fold_bn,
    hash_weights,
    pack,
    prune_channels,
    prune_weights,
    ptq,
    qat,
    ternary,
)
from edgeflock_compression.work import Work
from edgeflock_deploy.messages.values import Frozen

Helps = Literal["latency", "ram_bytes", "raw_bytes", "wire_bytes"]
HELPS: tuple[Helps, ...] = ("latency", "ram_bytes", "raw_bytes", "wire_bytes")


class Pass(NamedTuple):
    """One entry of the table.

    Args:
        run: the pass; its second argument is an instance of `settings`.
        settings: what may be set, with defaults; unknown keys are refused.
        does: in one line, for people.
        helps: what it can make smaller on the runtimes of today. Latency is to be measured per device class: int8 is
            slower on some.
        place: passes stand in a recipe by rising place; of one place a recipe has at most one.
        converts: whether it turns the model into a `.tflite`; a recipe has one such pass, then at most `pack`.
    """

    run: Callable[[Work, Any], Work]
    settings: type[Frozen]
    does: str
    helps: frozenset[Helps]
    place: int
    converts: bool = False


_ALL: frozenset[Helps] = frozenset(HELPS)
_WIRE: frozenset[Helps] = frozenset({"wire_bytes"})

PASSES: Mapping[str, Pass] = {
    "distill": Pass(distill.distill, distill.Settings, "trains a smaller student from the model's answers", _ALL, 1),
    "prune_channels": Pass(
        prune_channels.prune_channels, prune_channels.Settings, "removes units, channels and residual blocks", _ALL, 2
    ),
    "fold_bn": Pass(fold_bn.fold_bn, fold_bn.Settings, "folds batch norm into the layer before or after it", _ALL, 3),
    "factorize": Pass(factorize.factorize, factorize.Settings, "splits layers into thinner ones", _ALL, 4),
    "prune_weights": Pass(prune_weights.prune_weights, prune_weights.Settings, "holds small weights at zero", _WIRE, 5),
    "cluster": Pass(cluster.cluster, cluster.Settings, "lets weights share a few trained values", _WIRE, 6),
    "ternary": Pass(ternary.make_ternary, ternary.Settings, "leaves each weight three values, trained", _WIRE, 6),
    "binary": Pass(binary.make_binary, binary.Settings, "leaves each weight two values, trained", _WIRE, 6),
    "hash": Pass(hash_weights.hash_weights, hash_weights.Settings, "shares values by a seeded hash", _WIRE, 6),
    "qat": Pass(
        qat.train_quantized, qat.Settings, "trains with the rounding of int8, then converts", _ALL, 7, converts=True
    ),
    "ptq": Pass(
        ptq.quantize_after_training, ptq.Settings, "converts, with or without quantization", _ALL, 7, converts=True
    ),
    "pack": Pass(pack.pack, pack.Settings, "codes the file for the wire; every recipe ends with it", _WIRE, 8),
}
