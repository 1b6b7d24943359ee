"""The ground that every chart stands on: axes, scales and the frame, as inline SVG.

Colours and fonts come from the page's style sheet, so that a chart follows the light and the
dark scheme; every text passes through `Markup.format`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

# A width of 440 keeps the texts of a chart legible when a phone shows it at 340.
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 68, 16, 14, 46
_LINE = 17  # from one line of labels to the next
_STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """A direction of a chart.

    Attributes:
        title: what it shows, with its unit.
        low: value at its start.
        high: value at its end, above `low`.
        write: turns the value of a tick into text.
        whole: ticks stand at whole numbers only.
    """

    title: str
    low: float
    high: float
    write: Callable[[float], str]
    whole: bool = False

    def ticks(self) -> list[float]:
        """Three to seven round values within the axis."""
        step = _step((self.high - self.low) / 6)
        if self.whole:
            step = max(1.0, step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Plot:
    """A pair of axes on paper; `height` in the units of the drawing, its width is 440.

    `under` are texts at values of `x`, on a line of their own below the ticks.
    """

    x: Axis
    y: Axis
    height: int = 250
    under: Sequence[tuple[float, str]] = ()

    @property
    def _floor(self) -> int:
        """Where the horizontal axis is."""
        return self.height - _BOTTOM - (_LINE if self.under else 0)

    def across(self, value: float) -> float:
        """The horizontal place of a value of `x`."""
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def up(self, value: float) -> float:
        """The vertical place of a value of `y`."""
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return self._floor - share * (self._floor - _TOP)

    def draw(self, marks: Iterable[Markup], description: str) -> Markup:
        """The chart: grid, axes and `marks`; `description` is read out in its place."""
        return Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>'
        ).format(_WIDTH, self.height, description, self._ground(), Markup().join(marks))

    def _ground(self) -> Markup:
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        titles = Markup(
            '<text class="axis-title" x="{:.0f}" y="{}" text-anchor="middle">{}</text>'
            '<text class="axis-title" transform="translate(11 {:.0f}) rotate(-90)" '
            'text-anchor="middle">{}</text>'
        )
        return Markup().join(
            [
                *(self._row(tick) for tick in self.y.ticks()),
                *(self._column(tick) for tick in self.x.ticks()),
                *(self._label(value, text) for value, text in self.under),
                titles.format(
                    middle,
                    self.height - 8,
                    self.x.title,
                    (_TOP + self._floor) / 2,
                    self.y.title,
                ),
            ]
        )

    def _row(self, tick: float) -> Markup:
        return Markup(
            '<line class="grid" x1="{0}" x2="{1}" y1="{2:.1f}" y2="{2:.1f}"/>'
            '<text class="tick" x="{3}" y="{4:.1f}" text-anchor="end">{5}</text>'
        ).format(
            _LEFT, _WIDTH - _RIGHT, self.up(tick), _LEFT - 7, self.up(tick) + 4, self.y.write(tick)
        )

    def _column(self, tick: float) -> Markup:
        bottom = self._floor
        return Markup(
            '<line class="notch" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>'
            '<text class="tick" x="{0:.1f}" y="{3}" text-anchor="middle">{4}</text>'
        ).format(self.across(tick), bottom, bottom + 4, bottom + 17, self.x.write(tick))

    def _label(self, value: float, text: str) -> Markup:
        return Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            self.across(value), self._floor + 17 + _LINE, text
        )


def padded(
    values: Iterable[float], *, floor: float = -math.inf, ceil: float = math.inf
) -> tuple[float, float]:
    """The ends of an axis around `values`: a tenth of air, never beyond `floor` and `ceil`."""
    found = list(values)
    low, high = min(found), max(found)
    air = 0.1 * (high - low) or 0.1 * abs(high) or 0.1
    return max(floor, low - air), min(ceil, high + air)


def write_percent(value: float) -> str:
    """A tick of a share."""
    return f"{round(100 * value, 6):g}\u00a0%"


def write_number(value: float) -> str:
    """A tick of a count or a plain number."""
    text = f"{value:,.0f}" if value == int(value) and abs(value) >= 1000 else f"{value:g}"
    return text.replace("-", "−")


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))
