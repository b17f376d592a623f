"""A scatter plot of candidates as inline SVG: something that should be small against the loss.

Decided here: axes, what is drawn above what, and that a few very bad candidates must not flatten the rest: what lies
above the loss axis stands at its top edge as an arrow, with its value in its title. Colours are classes, which the
page's style sheet fills for light and dark. Not known here: recipes, goals as text, certificates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeflock_compression.search.markup import MINUS, Html, element

Kind = Literal["candidate", "baseline", "front", "shipped"]
_ORDER: tuple[Kind, ...] = ("candidate", "baseline", "front", "shipped")
_WIDTH, _HEIGHT = 470, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 30, 36, 46
_ARROW_PX = 13  # an arrow hangs so far below the upper edge
_LABEL_PX = 58  # labels of goals that are nearer than this are written one above the other


@dataclass(frozen=True)
class Point:
    """A candidate: `x` > 0 in the unit of the axis, `y` the upper bound of its loss, `low` the estimate of it.

    `mark` is written into it (the number that stands for it on the front; empty for others), `title` shown while a
    pointer is on it, `href` followed.
    """

    x: float
    y: float
    low: float | None
    kind: Kind
    title: str
    mark: str = ""
    href: str | None = None


@dataclass(frozen=True)
class Goal:
    """What a goal asks of the two axes: at most `x`, at most `y`; None where it asks nothing."""

    mark: str
    x: float | None
    y: float | None


@dataclass(frozen=True)
class _Axes:
    """Where values lie on the paper: x logarithmic, y linear with everything above `top` at the top edge."""

    least_x: float
    most_x: float
    bottom: float
    top: float

    def x(self, value: float) -> float:
        share = math.log(value / self.least_x) / math.log(self.most_x / self.least_x)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (min(value, self.top) - self.bottom) / (self.top - self.bottom)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def scatter(
    points: Sequence[Point], goals: Sequence[Goal], x_name: str, y_name: str, x_text: Callable[[float], str]
) -> Html:
    """The plot, an `svg` element as wide as its place.

    Args:
        points: at least one.
        goals: their bounds are drawn; what meets both bounds of one lies on tinted ground.
        x_name: of the axis, with its unit.
        y_name: of the axis, with its unit.
        x_text: how a value of x is written.
    """
    axes = _axes(points, goals)
    drawn = sorted(points, key=lambda point: _ORDER.index(point.kind))
    return element(
        "svg",
        element("title", f"{x_name} against {y_name}"),
        *_grounds(axes, goals),
        *_grid(axes, x_text, x_name, y_name),
        *_goal_lines(axes, goals, x_text),
        _front_line(axes, points),
        *(_drawn(axes, point) for point in drawn),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        class_="plot",
    )


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points on the front of these two axes alone, by rising x; one without a better in both."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, point.y)):
        if not best or point.y < best[-1].y:
            best.append(point)
    return best


def _axes(points: Sequence[Point], goals: Sequence[Goal]) -> _Axes:
    xs = [point.x for point in points] + [goal.x for goal in goals if goal.x]
    least, most = min(xs), max(xs)
    room = max((most / least) ** 0.07, 1.06)
    wanted = [goal.y for goal in goals if goal.y is not None]
    shown = [point.y for point in points if point.kind in ("shipped", "baseline")] + wanted
    needed = max(shown or [0.0])
    # Three times what the goals and the shipped variants need leaves room to see what comes near.
    top = max([needed, *(point.y for point in points if point.y <= 3 * needed or needed <= 0)])
    bottom = min(0.0, *(point.y for point in points), *(p.low for p in points if p.low is not None))
    span = max(top - bottom, 1e-3)
    return _Axes(least / room, most * room, bottom - (0.04 * span if bottom < 0 else 0), top + 0.08 * span)


def _grounds(axes: _Axes, goals: Sequence[Goal]) -> Iterator[Html]:
    for goal in goals:
        if goal.x is None and goal.y is None:
            continue
        right = _WIDTH - _RIGHT if goal.x is None else axes.x(goal.x)
        upper = _TOP if goal.y is None else axes.y(goal.y)
        yield element(
            "rect",
            x=_LEFT,
            y=_px(upper),
            width=_px(max(right - _LEFT, 0)),
            height=_px(max(_HEIGHT - _BOTTOM - upper, 0)),
            class_="ground",
        )


def _grid(axes: _Axes, x_text: Callable[[float], str], x_name: str, y_name: str) -> Iterator[Html]:
    low = _HEIGHT - _BOTTOM
    for value in _log_ticks(axes.least_x, axes.most_x):
        x = _px(axes.x(value))
        yield element("line", x1=x, x2=x, y1=_TOP, y2=low, class_="grid")
        yield element("text", x_text(value), x=x, y=low + 17, text_anchor="middle", class_="tick")
    for value in _ticks(axes.bottom, axes.top):
        y = axes.y(value)
        yield element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_px(y), y2=_px(y), class_="grid" if value else "zero")
        text = f"{value:g}".replace("-", MINUS)
        yield element("text", text, x=_LEFT - 7, y=_px(y + 4), text_anchor="end", class_="tick")
    yield element("text", x_name, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 8, text_anchor="middle", class_="axis")
    middle = (_TOP + low) / 2
    turned = f"translate(13 {middle}) rotate(-90)"
    yield element("text", y_name, transform=turned, text_anchor="middle", class_="axis")


def _goal_lines(axes: _Axes, goals: Sequence[Goal], x_text: Callable[[float], str]) -> Iterator[Html]:
    written: list[float] = []
    for value, marks in _marks((goal.x, goal.mark) for goal in goals):
        x = axes.x(value)
        row = sum(abs(x - other) < _LABEL_PX for other in written)
        written.append(x)
        yield element("line", x1=_px(x), x2=_px(x), y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="goal")
        label = f"{marks}: {x_text(value)}"
        yield element("text", label, x=_px(x), y=_TOP - 6 - 13 * row, text_anchor="middle", class_="goal")
    for value, marks in _marks((goal.y, goal.mark) for goal in goals):
        y = axes.y(value)
        yield element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=_px(y), y2=_px(y), class_="goal")
        if " " in marks:
            yield element("text", marks, x=_WIDTH - _RIGHT - 3, y=_px(y - 4), text_anchor="end", class_="goal")
        else:
            yield element("text", marks, x=_WIDTH - _RIGHT + 4, y=_px(y + 4), class_="goal")


def _marks(bounds: Iterable[tuple[float | None, str]]) -> Iterator[tuple[float, str]]:
    """Each bound once, with all goals that ask for it."""
    together: dict[float, list[str]] = {}
    for value, mark in bounds:
        if value is not None:
            together.setdefault(value, []).append(mark)
    yield from ((value, " ".join(marks)) for value, marks in together.items())


def _front_line(axes: _Axes, points: Sequence[Point]) -> Html:
    """Steps, because between two candidates there is none: who asks for at most x gets the one to the left of it."""
    best = pareto([point for point in points if point.mark])
    if len(best) < 2:
        return Html()
    path = f"M{_px(axes.x(best[0].x))} {_px(axes.y(best[0].y))}"
    path += "".join(f"H{_px(axes.x(point.x))}V{_px(axes.y(point.y))}" for point in best[1:])
    return element("path", d=path, class_="front-line")


def _drawn(axes: _Axes, point: Point) -> Html:
    above = point.y > axes.top
    x, y = axes.x(point.x), axes.y(point.y) + (_ARROW_PX if above else 0)
    parts: list[Html] = [element("title", point.title)]
    if point.low is not None and point.mark and point.low < axes.top:
        parts.append(element("line", x1=_px(x), x2=_px(x), y1=_px(y), y2=_px(axes.y(point.low)), class_="whisker"))
    parts.append(element("circle", cx=_px(x), cy=_px(y), r=13, class_="hit"))
    parts.append(_shape(x, y, point.kind, above))
    if point.mark:
        parts.append(element("text", point.mark, x=_px(x), y=_px(y + 3.6), text_anchor="middle", class_="mark"))
    group = element("g", *parts, class_=f"point {point.kind}{' above' if above else ''}")
    return element("a", group, href=point.href) if point.href else group


def _shape(x: float, y: float, kind: Kind, above: bool) -> Html:
    size = {"candidate": 4.5, "baseline": 11}.get(kind, 8.5)
    if above:
        return element(
            "path", d=f"M{_px(x)} {_px(y - 1.5 * size)}l{1.3 * size:.1f} {2.2 * size:.1f}h{-2.6 * size:.1f}z"
        )
    if kind == "baseline":
        return element("path", d=f"M{_px(x)} {_px(y - size)}l{size} {size}l{-size} {size}l{-size} {-size}z")
    return element("circle", cx=_px(x), cy=_px(y), r=size)


def _log_ticks(least: float, most: float) -> list[float]:
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    for digits in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if least <= tick <= most]
        if len(ticks) <= 7:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 7)]


def _ticks(least: float, most: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((most - least) / 4))
    step *= next(times for times in (1, 2, 5, 10) if (most - least) / (step * times) <= 6)
    first = math.ceil(least / step)
    return [round(n * step, 9) + 0.0 for n in range(first, math.floor(most / step) + 1)]


def _px(value: float) -> str:
    return f"{value:.1f}"
