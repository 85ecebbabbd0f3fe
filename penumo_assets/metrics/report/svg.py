"""A small chart: linear axes, lines, bands and points as inline SVG.

Colours and fonts come from the page's style sheet (classes ``series-1`` ... ), so that one drawing
serves light, dark and print. Every string is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

LEFT, RIGHT, TOP, BOTTOM = 52, 14, 12, 46


@dataclass
class Chart:
    """One pair of axes; add marks, then ``svg()``.

    ``name`` must be unique on the page (it becomes an element id). Limits are (low, high) in data
    units; marks outside them are clipped.
    """

    name: str
    title: str
    description: str
    x_label: str
    y_label: str
    x_limits: tuple[float, float] = (0.0, 1.0)
    y_limits: tuple[float, float] = (0.0, 1.0)
    width: int = 460
    height: int = 340
    x_ticks: int = 5
    y_ticks: int = 5
    _marks: list[Markup] = field(default_factory=list)
    _legend: list[tuple[str, str]] = field(default_factory=list)

    def line(self, x: Sequence[float], y: Sequence[float], css: str, legend: str | None = None) -> None:
        """A polyline; with ``legend`` it is named beside the chart."""
        points = " ".join(f"{self._x(a):.1f},{self._y(b):.1f}" for a, b in zip(x, y, strict=True))
        self._marks.append(Markup('<polyline class="line {}" points="{}"/>').format(css, points))
        if legend:
            self._legend.append((css, legend))

    def band(self, x: Sequence[float], low: Sequence[float], high: Sequence[float]) -> None:
        """The area between two curves over the same ``x``."""
        there = [f"{self._x(a):.1f},{self._y(b):.1f}" for a, b in zip(x, high, strict=True)]
        back = [f"{self._x(a):.1f},{self._y(b):.1f}" for a, b in zip(x, low, strict=True)]
        self._marks.append(Markup('<polygon class="band" points="{}"/>').format(" ".join([*there, *reversed(back)])))

    def points(self, x: Sequence[float], y: Sequence[float], css: str, radii: Sequence[float] | None = None) -> None:
        """Discs, 4 units of radius unless given."""
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            radius = 4.0 if radii is None else radii[i]
            self._marks.append(
                Markup('<circle class="dot {}" cx="{}" cy="{}" r="{}"/>').format(
                    css, f"{self._x(a):.1f}", f"{self._y(b):.1f}", f"{radius:.1f}"
                )
            )

    def svg(self) -> Markup:
        """The drawing, with a title and a description for screen readers, and its legend as a list."""
        head = Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d" xmlns='
            '"http://www.w3.org/2000/svg"><title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
        ).format(self.width, self.height, self.name, self.name, self.name, self.title, self.name, self.description)
        clip = Markup('<clipPath id="{}-c"><rect x="{}" y="{}" width="{}" height="{}"/></clipPath>').format(
            self.name, LEFT - 5, TOP - 5, self.width - LEFT - RIGHT + 10, self.height - TOP - BOTTOM + 10
        )
        marks = Markup('<g clip-path="url(#{}-c)">{}</g>').format(self.name, Markup("").join(self._marks))
        return head + clip + self._axes() + marks + Markup("</svg>") + self._legend_list()

    def _axes(self) -> Markup:
        parts = []
        bottom, right = self.height - BOTTOM, self.width - RIGHT
        for value in _ticks(self.x_limits, self.x_ticks):
            x = f"{self._x(value):.1f}"
            parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, TOP, bottom))
            parts.append(Markup('<text class="tick mid" x="{}" y="{}">{}</text>').format(x, bottom + 17, f"{value:g}"))
        for value in _ticks(self.y_limits, self.y_ticks):
            y = self._y(value)
            parts.append(
                Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    LEFT, right, f"{y:.1f}", f"{y:.1f}"
                )
            )
            parts.append(
                Markup('<text class="tick end" x="{}" y="{}">{}</text>').format(LEFT - 7, f"{y + 4:.1f}", f"{value:g}")
            )
        middle = (LEFT + right) / 2
        parts.append(
            Markup('<text class="label mid" x="{}" y="{}">{}</text>').format(middle, self.height - 8, self.x_label)
        )
        across = (TOP + bottom) / 2
        parts.append(
            Markup('<text class="label mid" transform="translate(13 {}) rotate(-90)">{}</text>').format(
                across, self.y_label
            )
        )
        return Markup("").join(parts)

    def _legend_list(self) -> Markup:
        if not self._legend:
            return Markup("")
        items = [
            Markup(
                '<li><svg class="key" viewBox="0 0 24 8" aria-hidden="true">'
                '<polyline class="line {}" points="0,4 24,4"/></svg>{}</li>'
            ).format(css, text)
            for css, text in self._legend
        ]
        return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))

    def _x(self, value: float) -> float:
        low, high = self.x_limits
        return LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        low, high = self.y_limits
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)


def interval_bar(value: float | None, low: float | None, high: float | None, limits: tuple[float, float]) -> Markup:
    """One row of a forest plot: a dot with its interval on the scale ``limits``; empty if undefined.

    It carries no text: the numbers stand beside it in the same table row.
    """
    if value is None:
        return Markup("")

    def x(number: float) -> str:
        share = (number - limits[0]) / (limits[1] - limits[0])
        return f"{4 + 192 * min(max(share, 0.0), 1.0):.1f}"

    chance = Markup("")
    if limits[0] < 0.5 < limits[1]:
        chance = Markup('<line class="chance" x1="{}" x2="{}" y1="0" y2="18"/>').format(x(0.5), x(0.5))
    bar = Markup("")
    if low is not None and high is not None:
        bar = Markup('<line class="interval" x1="{}" x2="{}" y1="9" y2="9"/>').format(x(low), x(high))
    dot = Markup('<circle class="dot series-1" cx="{}" cy="9" r="4.5"/>').format(x(value))
    axis = Markup('<line class="grid" x1="4" x2="196" y1="9" y2="9"/>')
    return Markup('<svg class="forest" viewBox="0 0 200 18" aria-hidden="true">{}{}{}{}</svg>').format(
        axis, chance, bar, dot
    )


def bars(rows: Sequence[tuple[str, float]], total: float) -> Markup:
    """Horizontal bars of counts against ``total``, as an HTML list that reads as text too."""
    items = []
    for text, value in rows:
        share = 0.0 if total <= 0 else 100 * min(value / total, 1.0)
        items.append(
            Markup('<li><span class="bar-label">{}</span><span class="bar" style="--share:{}%"></span></li>').format(
                text, f"{share:.1f}"
            )
        )
    return Markup('<ul class="bars">{}</ul>').format(Markup("").join(items))


def _ticks(limits: tuple[float, float], count: int) -> list[float]:
    step = (limits[1] - limits[0]) / count
    return [round(limits[0] + i * step, 10) + 0.0 for i in range(count + 1)]
