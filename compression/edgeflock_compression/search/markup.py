"""HTML and SVG as text, in which nothing goes unescaped, and how numbers are written for people.

The law: what is not `Html` is escaped by `element`, and only `element` makes `Html`, so that no page of a report holds
a name or a reason as markup. Nothing here knows what a report says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

MINUS = "\N{MINUS SIGN}"  # as wide as a digit, where a hyphen is not
NOTHING = "\N{EN DASH}"  # where there is no number

_VOID = {"br", "wbr"}


class Html(str):
    """Markup: text that is escaped already."""

    __slots__ = ()


def element(tag: str, *parts: object, **attributes: object) -> Html:
    """An element with its content.

    Args:
        tag: its name.
        parts: what stands in it; all but `Html` is written as text.
        attributes: `class_` is `class`, other underscores are hyphens; one that is None is left out.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    opened = "".join(f' {name}="{escape(str(value))}"' for name, value in named.items())
    return Html(f"<{tag}{opened}>" if tag in _VOID else f"<{tag}{opened}>{joined(parts)}</{tag}>")


def joined(parts: Iterable[object]) -> Html:
    """The parts one after the other; all but `Html` is written as text."""
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts))


def number(value: Any) -> float | None:
    """A finite number, or None for whatever else a report may hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def bytes_text(count: float | None) -> str:
    """`812 B`, `17.8 KB`, `1.73 MB`: units of 1,000, three digits; a dash for None."""
    if count is None:
        return NOTHING
    for unit, size in (("MB", 1e6), ("KB", 1e3)):
        if abs(count) >= 0.9995 * size:
            return f"{three_digits(count / size)} {unit}"
    return f"{count:,.0f} B"


def round_bytes_text(count: float) -> str:
    """`20 KB`, `1.5 MB`, for round numbers, which need no zeros after the point."""
    unit, size = next((pair for pair in (("MB", 1e6), ("KB", 1e3)) if count >= pair[1]), ("B", 1.0))
    return f"{count / size:.3g} {unit}"


def three_digits(value: float) -> str:
    """A number with three digits that count, and no fraction from 1,000 on."""
    decimals = 2 - (math.floor(math.log10(abs(value))) if value else 0)
    return f"{value:,.{max(0, min(decimals, 6))}f}"


def smaller_text(baseline: float | None, value: float | None) -> str:
    """How many times smaller than the baseline, `3.65x smaller`; empty where there is nothing to compare."""
    if not baseline or not value:
        return ""
    if 0.995 < value / baseline < 1.005:
        return "the same"
    return (
        f"{three_digits(baseline / value)}x smaller"
        if value < baseline
        else f"{three_digits(value / baseline)}x larger"
    )


def ratio_text(ratio: float | None) -> str:
    """A share of the baseline, `0.42x`; a dash for None."""
    return NOTHING if ratio is None else f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def seconds_text(seconds: float) -> str:
    """`41 s`, `12 min 30 s`, `1 h 4 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
