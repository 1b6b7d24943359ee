"""True and answered labels as a picture: of many labels only those that are mistaken the most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from benchmarks.matrix.methods.base import UNREADABLE

Ints = NDArray[np.int64]

MOST_LABELS = 12
"""Rows of a picture: on a phone a cell of it is still a finger wide."""

OTHER, NONE = "another label", "unreadable"
_WIDTH, _LEFT, _TOP, _BOTTOM, _RIGHT = 440, 128, 104, 26, 44
_TALLEST = 40  # a cell
_LONGEST = 18  # characters of a label beside the picture
_STRONGEST = 0.62  # of a colour, so that the number on it stays readable
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #59626b; } .count { fill: #1d2227; }
.paper { fill: #ffffff; } .right { fill: #0b6cb3; } .wrong { fill: #e08a00; }
.frame { fill: none; stroke: #e1ded6; }
@media (prefers-color-scheme: dark) {
  text { fill: #a3acb5; } .count { fill: #e6e8ea; } .paper { fill: #1b1f23; }
  .right { fill: #58a9ea; } .wrong { fill: #f0ae3c; } .frame { stroke: #31373d; }
}
"""
"""The colours of the report's style sheet."""


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts as they are drawn.

    Attributes:
        rows: true labels.
        columns: answers, the same labels first, then `OTHER` and `NONE` where there are such.
        counts: shape (n_rows, n_columns); each row holds all report rows of its label.
        n_hidden: labels that are not shown.
        n_hidden_wrong: wrong answers among the rows of these.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: Ints
    n_hidden: int
    n_hidden_wrong: int


def confusion_picture(true: Ints, answered: Ints, labels: Sequence[str]) -> str:
    """A cell's picture as a file of its own, SVG, in the colours of a light or dark system.

    Args:
        true: index of each row's label, shape (n_rows,).
        answered: of each answer's, `UNREADABLE` where there is none, shape (n_rows,).
        labels: names.
    """
    found = confusion(true, answered, labels)
    height = _height(found)
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" '
            'height="{1}"><style>{2}</style><rect class="paper" width="{0}" height="{1}"/>{3}'
            "</svg>\n"
        ).format(_WIDTH, height, Markup(_STYLE), Markup().join(_marks(found)))
    )


def drawing(found: Confusion, description: str) -> Markup:
    """The picture within a page, whose style sheet colours it."""
    return Markup(
        '<svg class="chart confusion" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _height(found), description, Markup().join(_marks(found)))


def confusion(true: Ints, answered: Ints, labels: Sequence[str]) -> Confusion:
    """Count answers, of many labels for those that take part in the most mistakes."""
    n = len(labels)
    told = np.where(answered == UNREADABLE, n, answered)
    counts = np.bincount(true * (n + 1) + told, minlength=n * (n + 1)).reshape(n, n + 1)
    kept = _kept(counts)
    hidden = np.setdiff1d(np.arange(n), kept)
    shown = [counts[np.ix_(kept, kept)]]
    columns = [labels[at] for at in kept]
    if len(hidden):
        shown.append(counts[np.ix_(kept, hidden)].sum(axis=1, keepdims=True))
        columns.append(OTHER)
    if counts[:, n].any():
        shown.append(counts[kept, n][:, None])
        columns.append(NONE)
    wrong = counts[hidden].sum() - counts[hidden, hidden].sum()
    return Confusion(
        rows=tuple(labels[at] for at in kept),
        columns=tuple(columns),
        counts=np.concatenate(shown, axis=1),
        n_hidden=len(hidden),
        n_hidden_wrong=int(wrong),
    )


def _kept(counts: Ints) -> Ints:
    n = len(counts)
    if n <= MOST_LABELS:
        return np.arange(n)
    own = np.diag(counts)
    mistakes = counts.sum(axis=1) + counts[:, :n].sum(axis=0) - 2 * own
    return np.sort(np.argsort(-mistakes, kind="stable")[:MOST_LABELS])


def _size(found: Confusion) -> tuple[float, float]:
    """Width and height of a cell."""
    width = (_WIDTH - _LEFT - _RIGHT) / len(found.columns)
    return width, min(_TALLEST, max(22.0, width))


def _height(found: Confusion) -> int:
    note = 20 if found.n_hidden else 0
    return round(_TOP + _size(found)[1] * len(found.rows) + _BOTTOM + note)


def _marks(found: Confusion) -> list[Markup]:
    width, height = _size(found)
    marks = [Markup('<text class="axis-title" x="{}" y="14">true ↓ · answered →</text>').format(4)]
    for at, label in enumerate(found.columns):
        x = _LEFT + width * (at + 0.5)
        marks.append(
            Markup(
                '<text x="{0:.1f}" y="{1}" transform="rotate(-60 {0:.1f} {1})">{2}</text>'
            ).format(x, _TOP - 8, _short(label, 14))
        )
    for at, label in enumerate(found.rows):
        y = _TOP + height * (at + 0.5) + 4
        marks.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(
                _LEFT - 8, y, _short(label, _LONGEST)
            )
        )
        marks += [_cell(found, at, answer) for answer in range(len(found.columns))]
    return [*marks, *_note(found, height)]


def _cell(found: Confusion, row: int, column: int) -> Markup:
    width, height = _size(found)
    n, total = int(found.counts[row, column]), int(found.counts[row].sum())
    share = n / max(1, total)
    x, y = _LEFT + width * column, _TOP + height * row
    told = f"{found.rows[row]} answered as {found.columns[column]}: {n} of {total}"
    number = Markup('<text class="count" x="{:.1f}" y="{:.1f}" text-anchor="middle">{}</text>')
    return Markup(
        '<g><title>{}</title><rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" '
        'height="{:.1f}" fill-opacity="{:.3f}"/><rect class="frame" x="{:.1f}" y="{:.1f}" '
        'width="{:.1f}" height="{:.1f}"/>{}</g>'
    ).format(
        told,
        "right" if row == column else "wrong",
        *(x, y, width, height),
        _STRONGEST * share,
        *(x, y, width, height),
        number.format(x + width / 2, y + height / 2 + 4, n) if n else "",
    )


def _note(found: Confusion, height: float) -> list[Markup]:
    if not found.n_hidden:
        return []
    told = f"{len(found.rows)} labels with the most mistakes; {found.n_hidden} more hold "
    told += f"{found.n_hidden_wrong} wrong answers"
    y = _TOP + height * len(found.rows) + 24
    return [Markup('<text class="note" x="4" y="{:.1f}">{}</text>').format(y, told)]


def _short(label: str, longest: int) -> str:
    return label if len(label) <= longest else label[: longest - 1] + "…"
