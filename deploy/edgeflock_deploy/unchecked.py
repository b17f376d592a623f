"""Frozen values made and changed without validating them again: for parts that a rule has just computed itself.

The judge and the rollout machine make a dozen values for every window that a device closes. pydantic's own
`model_construct` and `model_copy` go through the fields one by one in Python, which took half of the time of an event;
these two set the fields at once. The result is the same value, field for field and in the same order.
"""

from __future__ import annotations

from typing import Any, TypeVar

from edgeflock_deploy.messages.values import Frozen

F = TypeVar("F", bound=Frozen)

_set = object.__setattr__  # a frozen value lets nobody else


def made(kind: type[F], /, **fields: Any) -> F:
    """A value of this kind. Every field must be given, in the order in which the class names them."""
    value = kind.__new__(kind)
    _set(value, "__dict__", fields)
    _set(value, "__pydantic_fields_set__", set(fields))
    _set(value, "__pydantic_extra__", None)
    _set(value, "__pydantic_private__", None)
    return value


def changed(value: F, /, **fields: Any) -> F:
    """The same value with some fields replaced."""
    kind, known = value.__class__, value.__pydantic_fields_set__
    other = kind.__new__(kind)
    _set(other, "__dict__", value.__dict__ | fields)
    # Hardly ever is a field set for the first time; nobody changes the set, so that both may have the same.
    _set(other, "__pydantic_fields_set__", known if fields.keys() <= known else known | fields.keys())
    _set(other, "__pydantic_extra__", None)
    _set(other, "__pydantic_private__", None)
    return other
