"""Drift on a terminal: the verdict, what it rests on, and which experts need a refit."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from red_ray.calibration import JUDGED
from red_ray.evaluation.drift_report import (
    ESCALATION,
    LABEL,
    NONE,
    NOVELTY,
    PROMISE,
    WORDS,
    Accuracy,
    Comparison,
    DriftReport,
    ExpertAdvice,
    Sight,
    Topic,
)

N_TEXTS = 3
"""Texts that a topic is shown by."""

N_LABELS = 12
"""Labels that are shown of those that changed."""

N_HELD = 4
"""Labels of an expert that are named."""


def show_drift(console: Console, run: str, report: DriftReport) -> None:
    """Print a report."""
    _verdict(console, run, report)
    console.print(_shares(report))
    for topic in report.topics:
        _topic(console, topic)
    if not report.topics and any(one.kind in (NOVELTY, NONE) for one in report.findings):
        _line(console, "\nThe most novel texts are of no one topic:")
        for text in report.most_novel:
            _line(console, f"  “{text}”", style="dim")
    _facts(console, report)
    if report.experts:
        console.print("\n[bold]Experts to refit[/]", highlight=False)
    for expert in report.experts:
        _expert(console, expert)
    if report.sight is not None:
        _line(console, f"\n{seen(report.sight, report.n)}", style="dim")


def seen(sight: Sight, n: int) -> str:
    """What so many texts could have shown, in one line."""
    label = f"a label that has {sight.share_before:.1%} of the texts"
    if sight.least_share is None:
        could = f"{n:,} texts could not have shown any change of {label}"
    else:
        could = (
            f"{n:,} texts show {label} with a chance of 80 % once it has {sight.least_share:.1%}"
        )
    if sight.n_for_triple is None:
        return f"{could}; that it tripled takes more reference texts"
    return f"{could}; that it tripled takes {sight.n_for_triple:,}"


def _verdict(console: Console, run: str, report: DriftReport) -> None:
    n = len(report.findings)
    word = "[bold red]drift[/]" if report.is_drift else "[bold green]no drift[/]"
    held = "1 holds" if n == 1 else f"{n} hold"
    console.print(
        f"{word} at level {report.settings.level:g} for the whole report: of "
        f"{len(report.comparisons)} comparisons {held if n else 'none holds'} after Holm's "
        "correction",
        highlight=False,
        soft_wrap=True,
    )
    words = f"{report.n:,} recent texts against {report.n_before:,} {WORDS[report.source]}"
    _line(console, f"{run}: {words}\n", style="dim")


def _shares(report: DriftReport) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3), header_style="dim")
    table.add_column("share of the texts")
    for name in ("recent", "95 % interval", "before", "factor", "p, corrected"):
        table.add_column(name, justify="right")
    for one in _shown(report):
        style = "bold" if one.is_drift else "dim"
        low, high = one.interval
        cells = (
            f"{one.share:.1%}",
            f"{low:.1%} – {high:.1%}",
            f"{one.share_before:.1%}",
            f"{one.share / one.share_before:.2f}" if one.share_before else "new",
            "< 0.0001" if one.p_corrected < 1e-4 else f"{one.p_corrected:.4f}",
        )
        table.add_row(Text(_named(one)), *cells, style=style)
    return table


def _shown(report: DriftReport) -> Iterable[Comparison]:
    """What is drift, labels first, and the shares over all texts, drift or not."""
    found = report.findings
    yield from [one for one in found if one.kind == LABEL][:N_LABELS]
    for kind in (NOVELTY, NONE, ESCALATION, PROMISE):
        yield from report.of(kind)
        yield from (one for one in found if one.kind == kind and one.expert)


def _named(one: Comparison) -> str:
    if one.kind == LABEL:
        return f"{one.name} ({one.expert})"
    if one.kind == NOVELTY and one.expert:
        return f"among the most novel, nearest to {one.expert}"
    near = f", nearest to {one.expert}" if one.expert else ""
    words = {
        NOVELTY: "more novel than 95 % of the reference",
        NONE: "fits no label",
        ESCALATION: "escalated",
        PROMISE: "escalated, against what was promised",
    }
    return words[one.kind] + near


def _topic(console: Console, topic: Topic) -> None:
    one = topic.compared
    heading = "New topic" if topic.known_as is None else "Novel texts of a known label"
    console.print(
        f"\n[bold]{heading}[/]: {one.hits} recent texts, {one.hits_before} before",
        highlight=False,
    )
    if topic.known_as is not None:
        _line(console, f"  most came as {topic.known_as}, and are unlike its examples")
    near = f"nearest to {', '.join(topic.labels)} ({', '.join(topic.experts)})"
    _line(console, f"  {near}")
    for text in topic.texts[:N_TEXTS]:
        _line(console, f"  “{text}”", style="dim")


def _facts(console: Console, report: DriftReport) -> None:
    before = report.confidence_before
    beside = f", {before:.3f} before" if before is not None else ""
    _line(console, f"\nmean confidence {report.confidence:.3f}{beside}")
    if report.promised is not None:
        _line(console, f"escalated: {_promised(report, report.promised)}")
    elif not report.escalates:
        _line(console, "escalated: the run has no goal, so nothing is")
    if report.accuracy is not None:
        _line(console, f"accuracy: {_accuracy(report.accuracy)}")


def _promised(report: DriftReport, promised: float) -> str:
    share = report.of(ESCALATION)[0].share
    if report.of(PROMISE):
        return f"{share:.1%}, and at most {promised:.1%} was promised"
    return f"{share:.1%}, and {promised:.1%} of the rows that the thresholds come from"


def _accuracy(found: Accuracy) -> str:
    low, high = found.interval
    words = "no recent text has a label that the model knows"
    if found.accuracy is not None:
        words = (
            f"{found.accuracy:.1%} ({low:.1%} – {high:.1%}) on {found.n:,} labelled recent texts; "
            f"{_estimated(found)}"
        )
    if not found.unknown:
        return words
    unknown = ", ".join(f"{label} ({n})" for label, n in [*found.unknown.items()][:N_LABELS])
    return f"{words}; labels that the model does not know: {unknown}"


def _estimated(found: Accuracy) -> str:
    by = JUDGED.get(found.labelled_by)
    if by is None:
        return f"the estimate at training was {found.estimate:.1%}"
    return (
        f"at training it agreed with {found.estimate:.1%} of the labels of its hardest rows, {by}: "
        "no estimate of accuracy"
    )


def _expert(console: Console, expert: ExpertAdvice) -> None:
    held = ", ".join(expert.labels[:N_HELD])
    more = len(expert.labels) - N_HELD
    line = f"  {expert.expert}: {held}" + (f" and {more} more" if more > 0 else "")
    _line(console, line, style="bold")
    for reason in expert.reasons:
        _line(console, f"    {reason}")
    _line(console, f"    → {expert.advice}", style="dim")


def _line(console: Console, words: str, style: str = "") -> None:
    console.print(words, style=style, markup=False, highlight=False, soft_wrap=True)
