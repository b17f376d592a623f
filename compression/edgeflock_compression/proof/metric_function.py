"""A metric that the user wrote: `FILE.py:function`, called with (outputs, y).

Decided here: what such a function may return (one number, or one per item), and that whatever else it does is the
user's fault, told in one line. Larger is better: a function that measures an error returns its negative.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.errors import BadInput

Array = NDArray[Any]

_MEND = "return one number, or an array with one per item"


@dataclass(frozen=True)
class MetricFunction:
    """The user's function behind checks.

    Args:
        name: `FILE.py:function`, for messages.
        call: takes outputs (n, ...) and y (n,) or (n, k).
    """

    name: str
    call: Callable[[Array, Array], Any]

    def per_item(self, outputs: Array, y: Array) -> Array | None:
        """Its values (n,), booleans as they are and numbers as float64; None if it gives one number.

        Raises:
            BadInput: it raises, or returns something else.
        """
        values = self._called(outputs, y)
        if values.ndim == 0:
            return None
        return values if values.dtype.kind == "b" else values.astype(np.float64)

    def whole(self, outputs: Array, y: Array) -> float:
        """Its one number; raises BadInput as `per_item` does."""
        return float(np.mean(self._called(outputs, y)))

    def on_resample(self, outputs: Array, y: Array) -> float:
        """Its number on items drawn with replacement; NaN where it has none, as AUC without a class."""
        try:
            return self.whole(outputs, y)
        except BadInput:
            return math.nan

    def _called(self, outputs: Array, y: Array) -> Array:
        try:
            values = np.asarray(self.call(outputs, y))
        except Exception as error:  # the user's code raises what it likes
            why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise self._bad(f"raised {why}", "mend the function") from error
        if values.dtype.kind not in "biuf":
            raise self._bad(f"returned {_shown(values)}", _MEND)
        if values.ndim and values.shape != (len(y),):
            raise self._bad(f"returned shape {values.shape} for {len(y)} items", _MEND)
        if not np.isfinite(values).all():
            raise self._bad("returned NaN or infinite values", "return finite numbers")
        return values

    def _bad(self, wrong: str, mend: str) -> BadInput:
        return BadInput(f"metric '{self.name}'", wrong, mend)


def load_metric_function(name: str) -> MetricFunction:
    """Load `FILE.py:function`. The file is run, with the rights of whoever started this.

    Raises:
        BadInput: no such file or function, or the file cannot be run.
    """
    file, _, function = name.rpartition(":")
    thing = f"metric '{name}'"
    if not Path(file).is_file():
        raise BadInput(thing, f"there is no file {file}", "give FILE.py:function")
    module_name = f"_edgeflock_metric_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise BadInput(thing, f"{file} is no Python file", "give FILE.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses of the file look their own module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BadInput(thing, f"{file} raised {why}", "mend the file") from error
    call = getattr(module, function, None)
    if not callable(call):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise BadInput(thing, f"{file} has no function '{function}'", f"it has {', '.join(own) or 'none'}")
    return MetricFunction(name, call)


def _shown(values: Array) -> str:
    return "None" if values.dtype == object and values.ndim == 0 and values.item() is None else f"{values.dtype} values"
