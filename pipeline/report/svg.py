"""A few plots as inline SVG. Colours are the page's CSS variables, so that they follow its light or dark scheme.

Every plot is drawn 460 units wide and scales with its card; what a shape stands for is in its `<title>`, which browsers
show under the pointer and read aloud.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 38
INNER_W, INNER_H = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A series: `colour` is a CSS colour; `dots` marks every point."""

    name: str
    points: Sequence[Point]
    colour: str
    dots: bool = False


@dataclass(frozen=True)
class Stack:
    """One layer of stacked columns or bars: a value for each column."""

    name: str
    values: Sequence[float]
    colour: str


def percent(value: float) -> str:
    """A share.

    >>> percent(0.914), percent(0.005), percent(0.00025)
    ('91%', '0.5%', '0.025%')
    """
    return f"{value:.0%}" if value in (0, 1) or value >= 0.01 else f"{value * 100:.2g}%"


def compact(value: float) -> str:
    """A number in few characters.

    >>> compact(0), compact(0.25), compact(12.0), compact(20480), compact(1.5e6)
    ('0', '0.25', '12', '20.5k', '1.5M')
    """
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g}{suffix}"
    return f"{value:.0f}" if value == int(value) else f"{value:.3g}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover [low, high].

    >>> ticks(0, 1), ticks(0, 87)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0, 20, 40, 60, 80, 100])
    """
    span = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= about + 1e-9)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if step >= 1:
        return [round(i * step) for i in range(first, last + 1)]
    return [round(i * step, 12) for i in range(first, last + 1)]


def lines(series: Sequence[Line], x_label: str, y_format: Format = compact, top: float | None = None) -> Markup:
    """Line plot. `top` fixes the upper end of the y axis, which begins at 0, or below it where a point lies there."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup("")
    xs = [x for x, _ in points]
    across = _scale(min(xs), max(xs), LEFT, LEFT + INNER_W)
    lowest, highest = min(0.0, *(y for _, y in points)), max(0.0, *(y for _, y in points))
    marks = ticks(lowest, top or (highest if highest > lowest else 1.0))
    up = _scale(marks[0], marks[-1], TOP + INNER_H, TOP)
    drawn = [_grid(marks, up, y_format), _x_axis(min(xs), max(xs), across, x_label)]
    for line in series:
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        drawn.append(Markup('<polyline points="{}" fill="none" stroke="{}" class="line"/>').format(path, line.colour))
        for x, y in line.points if line.dots else ():
            drawn.append(
                Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}" class="dot"><title>{}</title></circle>').format(
                    across(x), up(y), line.colour, f"{line.name}, {x_label} {compact(x)}: {y_format(y)}"
                )
            )
    return _svg(drawn, f"{', '.join(line.name for line in series)} over {x_label}")


def columns(
    layers: Sequence[Stack], labels: Sequence[str], x_label: str, y_format: Format = compact, top: float | None = None
) -> Markup:
    """Stacked columns, first layer at the bottom; at most about six labels are written."""
    if not labels:
        return Markup("")
    totals = [sum(layer.values[i] for layer in layers) for i in range(len(labels))]
    marks = ticks(0, top or max(*totals, 1e-9))
    up = _scale(marks[0], marks[-1], TOP + INNER_H, TOP)
    slot = INNER_W / len(labels)
    gap = 2 if slot > 6 else 0.5
    drawn = [_grid(marks, up, y_format), _column_labels(labels, slot, x_label)]
    base = [0.0] * len(labels)
    for layer in layers:
        for i, value in enumerate(layer.values):
            if value > 0:
                box = (LEFT + i * slot + gap / 2, up(base[i] + value), slot - gap, up(base[i]) - up(base[i] + value))
                drawn.append(_box(box, layer.colour, f"{layer.name}, {x_label} {labels[i]}: {y_format(value)}"))
                base[i] += value
    return _svg(drawn, f"{', '.join(layer.name for layer in layers)} over {x_label}")


def bars(
    layers: Sequence[Stack], labels: Sequence[str], x_format: Format = compact, top: float | None = None
) -> Markup:
    """Stacked horizontal bars, one for each label, which stands above its bar."""
    if not labels:
        return Markup("")
    totals = [sum(layer.values[i] for layer in layers) for i in range(len(labels))]
    marks = ticks(0, top or max(*totals, 1e-9))
    across = _scale(0, marks[-1], 4, WIDTH - RIGHT - 4)
    row, height = 40, 40 * len(labels) + 26
    drawn = [
        Markup('<line x1="{0:.1f}" x2="{0:.1f}" y1="0" y2="{1}" class="grid"/>').format(across(mark), height - 22)
        + _text(
            across(mark), height - 7, x_format(mark), "start" if not mark else "end" if mark == marks[-1] else "middle"
        )
        for mark in marks
    ]
    for i, label in enumerate(labels):
        drawn.append(_text(4, i * row + 14, label, "start", "name"))
        at = 0.0
        for layer in layers:
            if layer.values[i] > 0:
                box = (across(at), i * row + 19, across(at + layer.values[i]) - across(at), 16)
                drawn.append(_box(box, layer.colour, f"{label}, {layer.name}: {x_format(layer.values[i])}"))
                at += layer.values[i]
    return _svg(drawn, f"{', '.join(layer.name for layer in layers)} of {', '.join(labels)}", height)


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: begin + (value - low) / span * (end - begin)


def _grid(marks: Sequence[float], up: Callable[[float], float], y_format: Format) -> Markup:
    return Markup("").join(
        Markup('<line x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}" class="{kind}"/>').format(
            LEFT, LEFT + INNER_W, y=up(mark), kind="grid" if mark else "axis"
        )
        + _text(LEFT - 6, up(mark) + 4, y_format(mark), "end")
        for mark in marks
    )


def _x_axis(low: float, high: float, across: Callable[[float], float], label: str) -> Markup:
    marks = [mark for mark in ticks(low, high) if low <= mark <= high] if high > low else [low]
    written = Markup("").join(_text(across(mark), TOP + INNER_H + 16, compact(mark)) for mark in marks)
    return written + _text(LEFT + INNER_W / 2, HEIGHT - 5, label, "middle", "label")


def _column_labels(labels: Sequence[str], slot: float, x_label: str) -> Markup:
    every = max(1, math.ceil(len(labels) / 6))
    written = [
        _text(LEFT + (i + 0.5) * slot, TOP + INNER_H + 16, label) for i, label in enumerate(labels) if i % every == 0
    ]
    return Markup("").join(written) + _text(LEFT + INNER_W / 2, HEIGHT - 5, x_label, "middle", "label")


def _box(box: tuple[float, float, float, float], colour: str, title: str) -> Markup:
    return Markup(
        '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"><title>{}</title></rect>'
    ).format(*box, colour, title)


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "tick") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, kind, text)


def _svg(drawn: Sequence[Markup], title: str, height: int = HEIGHT) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, escape(title), Markup("").join(drawn)
    )
