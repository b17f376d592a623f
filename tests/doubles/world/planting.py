"""How a mistake is planted: a small change of the product's text, made while its module is imported.

It is applied only in a process that has not imported the product yet. Which mistakes there are stands elsewhere.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple


class Change(NamedTuple):
    """In a module, one text for another."""

    module: str
    old: str
    new: str


class Mistake(NamedTuple):
    """A mistake: its name, its changes, and the option without which it cannot show, if any."""

    name: str
    changes: tuple[Change, ...]
    needs: str | None = None


def one(name: str, module: str, old: str, new: str, needs: str | None = None) -> Mistake:
    """A mistake of one change."""
    return Mistake(name, (Change(module, old, new),), needs)


def plant(mistake: Mistake) -> None:
    """Have the mistake made by whatever is imported from here on."""
    for change in mistake.changes:
        if change.module in sys.modules:
            raise RuntimeError(f"{change.module} is imported already")
    sys.meta_path.insert(0, _Planting(mistake.changes))


def text_of(module: str) -> str:
    """The text of a module, which need not be imported."""
    found = None
    for root in sys.path:
        path = Path(root or ".", *module.split(".")).with_suffix(".py")
        found = path if path.is_file() and found is None else found
    if found is None:
        raise LookupError(module)
    return found.read_text()


class _Planting(importlib.abc.MetaPathFinder):
    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        changes = [change for change in self._changes if change.module == name]
        if not changes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Loader(name, spec.origin, changes)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, changes: Sequence[Change]) -> None:
        super().__init__(name, path)
        self._changes = changes

    def get_code(self, fullname: str) -> CodeType | None:
        text = Path(self.path).read_text()
        for change in self._changes:
            if text.count(change.old) != 1:
                raise RuntimeError(
                    f"{change.module} has the text of a mistake {text.count(change.old)} times, not once"
                )
            text = text.replace(change.old, change.new)
        return self.source_to_code(text.encode(), self.path)
