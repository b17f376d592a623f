"""Every compression pass, and what it helps. A new pass is one file beside this one and one line in `PASSES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from edgeflock_compression.passes import ptq
from edgeflock_compression.work import Work
from edgeflock_deploy.messages import Frozen

Helps = Literal["latency", "ram_bytes", "raw_bytes", "wire_bytes"]


class Pass(NamedTuple):
    """One entry of the table.

    Args:
        run: the pass; its second argument is an instance of `settings`.
        settings: what may be set, with defaults; unknown keys are refused.
        helps: what it can make smaller. Latency is to be measured per device class: int8 is slower on some.
        converts: whether it turns the model into a `.tflite`; a recipe has exactly one such pass.
    """

    run: Callable[[Work, Any], Work]
    settings: type[Frozen]
    helps: frozenset[Helps]
    converts: bool


PASSES: Mapping[str, Pass] = {
    "ptq": Pass(
        run=ptq.quantize_after_training,
        settings=ptq.Settings,
        helps=frozenset({"latency", "ram_bytes", "raw_bytes", "wire_bytes"}),
        converts=True,
    ),
}
