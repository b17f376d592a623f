"""Numbers that somebody gives on a command line, for both commands: NaN and infinity are none of them.

A range alone lets NaN through, which no comparison refuses, and infinity where it has no upper end.
"""

from __future__ import annotations

import math
from typing import Any

import click


class FloatRange(click.FloatRange):
    """Finite numbers within a range, as an option's `type`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; what is none, or lies outside, is a usage error (exit code 2)."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number.", param, ctx)
        return number
