"""Names of recipes that decode themselves: `ch50_p80_c32_qat8` is a recipe as it stands.

Parts, joined by `_`, in the order of the passes:

| part | pass |
|---|---|
| `kd50` | distill into the same architecture at 50 % of its width |
| `ch50` | prune_channels: 50 % of the channels removed |
| `mac30` | prune_channels: channels removed until 30 % of the multiply-adds are left |
| `bn` | fold_bn |
| `lr40` | factorize: 40 % of each layer's multiply-adds kept |
| `p80`, `p2of4` | prune_weights: 80 % of the weights zero; 2 of every 4 kept |
| `c32` | cluster: 32 shared values |
| `t`, `b` | ternary, binary |
| `h64` | hash: one value for 64 weights |
| `qat8` | qat, at the end |
| `float32`, `float16`, `dynamic_wi8`, `static_wi8_ai8`, `static_wi8_ai16`, and the same with `wi4` | ptq, at the end |
| `comp`, after an integer one of these | ptq with `rounding = "compensated"` |
| `pack3`, last of all | pack, to be unpacked within 3 s by a Raspberry Pi 4; without it 10 s, the most there is |

The names at the end say what is stored: `<ranges>_w<weights>_a<activations>`; ranges of activations are found at run
time (`dynamic`) or calibrated before (`static`); `i4`, `i8`, `i16` are signed integers of so many bits. Where nothing
stands at the end, the file is `float32`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

SHIPPED = ("float32", "float16", "dynamic_wi8", "static_wi8_ai8", "static_wi8_ai16")

_ENDS: Mapping[str, dict[str, Any]] = {
    "float32": {"use": "ptq", "mode": "float32"},
    "float16": {"use": "ptq", "mode": "float16"},
    "dynamic_wi8": {"use": "ptq", "mode": "dynamic"},
    "static_wi8_ai8": {"use": "ptq", "mode": "static"},
    "static_wi8_ai16": {"use": "ptq", "mode": "static", "activations": "int16"},
    "dynamic_wi4": {"use": "ptq", "mode": "dynamic", "weights": "int4"},
    "weight_only_wi4": {"use": "ptq", "mode": "weight_only", "weights": "int4"},
    "weight_only_wi8": {"use": "ptq", "mode": "weight_only"},
    "static_wi4_ai8": {"use": "ptq", "mode": "static", "weights": "int4"},
    "qat8": {"use": "qat"},
}
_COMPENSATED = "_comp"
_PERCENT = r"(\d{1,2}(?:\.\d+)?)"
_PARTS: tuple[tuple[str, Callable[[str], dict[str, Any]]], ...] = (
    (r"kd(\d{1,3})", lambda v: {"use": "distill", "width": int(v) / 100}),
    ("ch" + _PERCENT, lambda v: {"use": "prune_channels", "ratio": float(v) / 100}),
    ("mac" + _PERCENT, lambda v: {"use": "prune_channels", "mac_ratio": float(v) / 100}),
    (r"bn()", lambda _: {"use": "fold_bn"}),
    ("lr" + _PERCENT, lambda v: {"use": "factorize", "ratio": float(v) / 100}),
    (r"p(\d+of\d+)", lambda v: {"use": "prune_weights", "n_of_m": v.replace("of", ":")}),
    ("p" + _PERCENT, lambda v: {"use": "prune_weights", "sparsity": float(v) / 100}),
    (r"c(\d+)", lambda v: {"use": "cluster", "clusters": int(v)}),
    (r"t()", lambda _: {"use": "ternary"}),
    (r"b()", lambda _: {"use": "binary"}),
    (r"h(\d+)", lambda v: {"use": "hash", "ratio": 1 / max(int(v), 1)}),
)


def passes_of(name: str) -> list[dict[str, Any]] | None:
    """The passes that a name spells, as a recipe file would hold them; None for a name that spells none."""
    name, packing = _without_packing(name)
    bare = name.removesuffix(_COMPENSATED)
    compensated = {"rounding": "compensated"} if bare != name and "_wi" in bare else {}
    name = bare if compensated else name
    end = next((end for end in sorted(_ENDS, key=len, reverse=True) if name == end or name.endswith("_" + end)), None)
    front = name if end is None else name[: -len(end)].rstrip("_")
    passes = [_part(part) for part in front.split("_") if front]
    if any(step is None for step in passes) or not name:
        return None
    return [step for step in passes if step is not None] + [{**_ENDS[end or "float32"], **compensated}, *packing]


def _without_packing(name: str) -> tuple[str, list[dict[str, Any]]]:
    found = re.fullmatch(r"(.+)_pack(\d+)", name)
    return (found[1], [{"use": "pack", "decode_s": int(found[2])}]) if found else (name, [])


def _part(part: str) -> dict[str, Any] | None:
    for pattern, make in _PARTS:
        if found := re.fullmatch(pattern, part):
            return make(found.group(1))
    return None
