"""Dropout lowered as a model loses capacity: what regularised the full one starves the sparse one."""

from __future__ import annotations

from typing import Any

from edgeflock_compression.graph.flat import rebuild


def with_less_dropout(model: Any, kept_share: float) -> Any:
    """The model with the rate of every Dropout layer times the square root of the share of weights that stay.

    Han et al. 2015 (arXiv:1506.02626), section 3.2.

    Args:
        model: flat functional model.
        kept_share: share of the pruned layers' weights that are kept, 0 to 1.
    """

    def change(layer: Any) -> list[Any] | None:
        if not type(layer).__name__.endswith("Dropout"):
            return None
        config = layer.get_config()
        return [layer.__class__.from_config({**config, "rate": config["rate"] * kept_share**0.5})]

    return rebuild(model, change)
