"""Line charts and interval bars as inline SVG: they take the colours of the page, scale and print."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from components.report.figures import Figure, number

_WIDTH, _HEIGHT = 520, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34
_POINTS = 400  # a curve of more is thinned: the eye cannot tell, the page is smaller


def line_chart(series: Mapping[str, Sequence[tuple[float, float]]], x_name: str, y_name: str) -> Markup:
    """Curves over one axis, drawn from the first to the last point.

    Args:
        series: (x, y) points by name of the curve; a curve without points is left out.
        x_name: what the horizontal axis counts.
        y_name: what the vertical axis measures.

    Returns:
        An ``<svg>`` element; empty where no curve has a point.
    """
    curves = {name: _thin(points) for name, points in series.items() if points}
    if not curves:
        return Markup("")
    xs = [x for points in curves.values() for x, _ in points]
    ys = sorted(y for points in curves.values() for _, y in points)
    # The first steps of a training are far above the rest; the scale is that of the rest.
    low, high = ys[0], ys[min(len(ys) - 1, math.ceil(0.98 * len(ys)))]
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(low, high)
    left, right, bottom, top = min(xs), max(xs), min(low, y_ticks[0]), max(high, y_ticks[-1])

    def x_at(x: float) -> float:
        return _LEFT + (x - left) / ((right - left) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y_at(y: float) -> float:
        share = (min(y, top) - bottom) / ((top - bottom) or 1)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" class="chart" role="img" '
        f'aria-label="{escape(y_name)} over {escape(x_name)}" data-name="{escape(x_name)}" '
        # What pixels mean, for the script that reads the curves.
        f'data-frame="{_LEFT} {_WIDTH - _RIGHT} {_HEIGHT - _BOTTOM} {_TOP}" '
        f'data-range="{left:.6g} {right:.6g} {bottom:.6g} {top:.6g}">'
    ]
    for tick in y_ticks:
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in x_ticks:
        parts.append(
            f'<text x="{x_at(tick):.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{number(tick)}</text>'
        )
    for index, (name, points) in enumerate(curves.items()):
        path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in points)
        parts.append(f'<polyline class="curve c{index}" data-name="{escape(name)}" points="{path}"/>')
        if len(curves) > 1:
            at = _LEFT + 12 + index * 130
            parts.append(
                f'<g class="legend"><line class="curve c{index}" x1="{at}" x2="{at + 18}" y1="{_TOP + 4}" '
                f'y2="{_TOP + 4}"/><text x="{at + 23}" y="{_TOP + 8}">{escape(name)}</text></g>'
            )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text></svg>')
    return Markup("".join(parts))


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


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = math.ceil(len(points) / _POINTS)
    kept = list(points[::stride])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers from ``low`` to ``high``."""
    if high <= low:
        return [low]
    raw = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * factor for factor in (1, 2, 2.5, 5, 10) if magnitude * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
