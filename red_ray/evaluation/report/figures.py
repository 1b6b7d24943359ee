"""Numbers as a reader meets them: with their interval, their unit and no false digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DASH = "–"
_SPACE = "\u00a0"  # a number and its unit stay on one line


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval, None where none is known."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure that stands alone: its name, what it says, and one line that explains it."""

    name: str
    value: str
    note: str
    interval: str = ""


def number(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def figure(table: Mapping[str, Any] | None, key: str) -> Figure | None:
    """The figure `key` of a table with its `_ci` twin, None where it is absent."""
    value = number((table or {}).get(key))
    if table is None or value is None:
        return None
    ends = table.get(f"{key}_ci")
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return Figure(value)
    low, high = number(ends[0]), number(ends[1])
    return Figure(value, None if low is None or high is None else (low, high))


def percent(value: float | None, digits: int = 1) -> str:
    """0.913 -> "91.3 %"."""
    value = number(value)
    return DASH if value is None else f"{100 * value:.{digits}f}{_SPACE}%"


def count(value: float | None) -> str:
    """1080 -> "1,080"."""
    value = number(value)
    return DASH if value is None else f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """-0.3456 -> "−0.346"."""
    value = number(value)
    return DASH if value is None else f"{value:.{digits}f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """Seconds in the largest unit that keeps them readable."""
    value = number(value)
    if value is None:
        return DASH
    if value < 10:
        return f"{value:.2f}{_SPACE}s"
    if value < 120:
        return f"{value:.0f}{_SPACE}s"
    if value < 7200:
        return f"{int(value // 60)}{_SPACE}min {int(value % 60)}{_SPACE}s"
    minutes = round(value / 60)
    return f"{minutes // 60}{_SPACE}h {minutes % 60:02d}{_SPACE}min"


def dollars(value: float | None) -> str:
    """3.5 -> "$3.50", 0.0031 -> "$0.0031"."""
    value = number(value)
    if value is None:
        return DASH
    if not 0 < value < 0.1:
        return f"${value:,.2f}"
    return f"${value:.{1 - math.floor(math.log10(value))}f}"  # two digits that say something


def percent_interval(found: Figure | None) -> str:
    """ "88.5 to 92.0 %", empty where no interval is known."""
    if found is None or found.interval is None:
        return ""
    low, high = found.interval
    return f"{100 * low:.1f} to {percent(high)}"


def decimal_interval(found: Figure | None, digits: int = 3) -> str:
    """The interval of a plain figure, such as 0.951 to 0.972; empty where no interval is known."""
    if found is None or found.interval is None:
        return ""
    return " to ".join(decimal(end, digits) for end in found.interval)


def percent_tile(table: Mapping[str, Any] | None, key: str, *, name: str, note: str) -> Tile:
    """A rate as a tile."""
    found = figure(table, key)
    value = percent(found.value) if found else DASH
    return Tile(name, value, note, percent_interval(found))


def plural(n: int, one: str, many: str = "") -> str:
    """1, "row" -> "1 row"; 3, "row" -> "3 rows"."""
    return f"{n:,}{_SPACE}{one if n == 1 else many or one + 's'}"
