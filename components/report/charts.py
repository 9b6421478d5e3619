"""Line charts and interval bars as inline SVG: they take the colours of the page, scale and print."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from components.report.figures import Figure

_WIDTH, _HEIGHT = 520, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_POINTS = 400  # a curve of more is thinned: the eye cannot tell, the page is smaller
_FEW = 20  # a curve of no more has a dot at each point
_LETTER, _LEGEND_LINE = 5.6, 16  # room of a letter of the legend, and of a line of it

# (x, y), or (x, y, low, high) with the ends of an interval.
Point = Sequence[float]


def line_chart(
    series: Mapping[str, Sequence[Point]],
    x_name: str,
    y_name: str,
    diagonal: bool = False,
) -> Markup:
    """Curves over one axis, drawn from the first to the last point.

    Args:
        series: (x, y) points by name of the curve, or (x, y, low, high) with the ends of an interval, which becomes a
            bar; a curve without points is left out.
        x_name: what the horizontal axis counts.
        y_name: what the vertical axis measures.
        diagonal: whether to draw y = x, for a curve that is to be held against it.

    Returns:
        An ``<svg>`` element; empty where no curve has a point.
    """
    curves = {name: _thin(points) for name, points in series.items() if points}
    if not curves:
        return Markup("")
    xs = [point[0] for points in curves.values() for point in points]
    ys = sorted(y for points in curves.values() for _, *values in points for y in values)
    # The first steps of a training are far above the rest; the scale is that of the rest.
    low, high = ys[0], ys[min(len(ys) - 1, math.ceil(0.98 * len(ys)))]
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(low, high)
    left, right, bottom, top = min(xs), max(xs), min(low, y_ticks[0]), max(high, y_ticks[-1])
    legend = _legend(list(curves)) if len(curves) > 1 else []
    above = _TOP + _LEGEND_LINE * (1 + max(line for _, line in legend)) if legend else _TOP
    height = _HEIGHT + above - _TOP

    def x_at(x: float) -> float:
        return _LEFT + (x - left) / ((right - left) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        share = (min(y, top) - bottom) / ((top - bottom) or 1)
        return height - _BOTTOM - share * (height - above - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {height}" class="chart" role="img" '
        f'aria-label="{escape(y_name)} over {escape(x_name)}" data-name="{escape(x_name)}" '
        # What pixels mean, for the script that reads the curves.
        f'data-frame="{_LEFT} {_WIDTH - _RIGHT} {height - _BOTTOM} {above}" '
        f'data-range="{left:.6g} {right:.6g} {bottom:.6g} {top:.6g}">'
    ]
    for tick in y_ticks:
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(tick)}</text>')
    for tick in x_ticks:
        parts.append(
            f'<text x="{x_at(tick):.1f}" y="{height - _BOTTOM + 14}" text-anchor="middle">{_tick(tick)}</text>'
        )
    if diagonal:
        low, high = max(left, bottom), min(right, top)
        ends = f'x1="{x_at(low):.1f}" y1="{y_at(low):.1f}" x2="{x_at(high):.1f}" y2="{y_at(high):.1f}"'
        parts.append(f'<line class="diagonal" {ends}/>')
    for index, (name, points) in enumerate(curves.items()):
        parts.append('<g class="series">')
        for x, _, *interval in points:
            if interval:
                low, high = interval
                bar = f'x1="{x_at(x):.1f}" x2="{x_at(x):.1f}" y1="{y_at(low):.1f}" y2="{y_at(high):.1f}"'
                parts.append(f'<line class="curve c{index}" {bar}/>')
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y, *_ in points)
        told = " ".join(f"{low:.6g},{high:.6g}" for _, _, low, high in points) if len(points[0]) > 2 else ""
        intervals = f' data-intervals="{told}"' if told else ""
        parts.append(f'<polyline class="curve c{index}" data-name="{escape(name)}" points="{path}"{intervals}/>')
        for x, y, *_ in points if len(points) <= _FEW else ():
            parts.append(f'<circle class="dot c{index}" cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="2.6"/>')
        parts.append("</g>")
    for index, (name, (at, line)) in enumerate(zip(curves, legend, strict=False)):
        y = _TOP + _LEGEND_LINE * line
        parts.append(
            f'<g class="legend"><line class="curve c{index}" x1="{at:.0f}" x2="{at + 18:.0f}" y1="{y}" y2="{y}"/>'
            f'<text x="{at + 23:.0f}" y="{y + 4}">{escape(name)}</text></g>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{height - 4}" text-anchor="middle">{escape(x_name)}</text></svg>')
    return Markup("".join(parts))


def _legend(names: Sequence[str]) -> list[tuple[float, int]]:
    """Place from the left, and line, of each name above the curves."""
    found, at, line = [], float(_LEFT), 0
    for name in names:
        width = 41 + _LETTER * len(name)
        if at > _LEFT and at + width > _WIDTH:
            at, line = float(_LEFT), line + 1
        found.append((at, line))
        at += width
    return found


def interval_bar(figure: Figure, low: float, high: float) -> Markup:
    """A figure as a dot and its interval as a bar, on a scale from ``low`` to ``high``."""
    if figure.value is None or high <= low:
        return Markup("")

    def at(x: float) -> str:
        return f"{4 + (min(max(x, low), high) - low) / (high - low) * 112:.1f}"

    bar = ""
    if low < 0 < high:
        bar = f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="1" y2="13"/>'
    if figure.low is not None and figure.high is not None:
        bar += f'<line class="bar" x1="{at(figure.low)}" x2="{at(figure.high)}" y1="7" y2="7"/>'
    return Markup(
        '<svg viewBox="0 0 120 14" class="interval" aria-hidden="true">'
        f'<line class="grid" x1="4" x2="116" y1="7" y2="7"/>{bar}<circle cx="{at(figure.value)}" cy="7" r="3.2"/></svg>'
    )


def _thin(points: Sequence[Point]) -> list[Point]:
    stride = math.ceil(len(points) / _POINTS)
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _tick(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers from ``low`` to ``high``."""
    if high <= low:
        return [low]
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
