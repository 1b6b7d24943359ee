"""Changes of labels on a terminal: what was refitted, and what became of the other labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from red_ray.calibration import WORDS
from red_ray.cli.console import Output

if TYPE_CHECKING:
    from red_ray.history import Entry
    from red_ray.labels import Change, Effect, LabelEffect
    from red_ray.labels.past import Past
    from red_ray.model import RedModel

N_SHOWN = 15
"""Labels that the table shows; the JSON has all."""

KINDS = {
    "rows": "calibration rows",
    "cross_fitted": "cross-fitted training rows: an estimate",
}


def show_change(output: Output, run: str, what: str, model: RedModel, change: Change) -> None:
    """Print what a change came to."""
    output.result(change_facts(run, what, model, change))
    if not output.as_json:
        print_change(output, run, what, model, change)


def print_change(output: Output, run: str, what: str, model: RedModel, change: Change) -> None:
    """The same as text alone."""
    print_ = output.out.print
    fitted = _fitted(change)
    print_(f"[bold]{_plain(what)}[/]: {fitted}, {change.seconds:.1f} s", soft_wrap=True)
    if change.effect is not None:
        _effect(output, change.effect)
    for line in change.notes:
        print_(line, style="yellow", markup=False, soft_wrap=True, highlight=False)
    if model.promise is not None and not model.promise.stale:
        kind = WORDS[model.promise.source]
        print_(f"thresholds derived again from the same goal ({kind})", highlight=False)
    print_(
        f"\nbundle {model.bundle_id[:16]}…   `red-ray label undo {run}` goes back",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def show_undo(
    output: Output,
    run: str,
    entry: Entry,
    n_left: int,
    *,
    goals: tuple[Mapping[str, float], Mapping[str, float]],
) -> None:
    """Print which state is back.

    Args:
        output: where to.
        run: its name.
        entry: of the state.
        n_left: states before it.
        goals: of the thresholds of the state that is gone, and of the one that is back.
    """
    gone, back = goals
    facts = {"run": run, "bundle": entry.bundle, "undone": entry.change, "n_left": n_left}
    output.result(facts | {"goals": dict(back) or None})
    if output.as_json:
        return
    output.out.print(f"undone: {entry.change}", markup=False, soft_wrap=True, highlight=False)
    states = "1 earlier state" if n_left == 1 else f"{n_left} earlier states"
    output.out.print(
        f"bundle {entry.bundle[:16]}… is back; {states} left", soft_wrap=True, highlight=False
    )
    if gone or back:
        told = ", ".join(f"{name} {share:g}" for name, share in back.items()) or "none"
        output.out.print(
            f"its thresholds of then are back, too ({told}); any given since are gone",
            soft_wrap=True,
            highlight=False,
        )


def show_past(output: Output, run: str, past: Past) -> None:
    """Print what `undo` would take back, the last change first."""
    changes = [asdict(one) for one in past.changes]
    facts = {"run": run, "bundle": past.bundle, "labels": past.labels, "changes": changes}
    output.result(facts)
    if output.as_json:
        return
    print_ = output.out.print
    print_(f"now: {len(past.labels):,} labels, bundle {past.bundle[:16]}…", highlight=False)
    if not past.changes:
        print_("no change of labels can be undone", highlight=False)
        return
    for one in past.changes:
        print_(
            f"{one.when}  {one.change} ({len(one.labels):,} to {one.n_labels_after:,} labels); "
            f"before it: bundle {one.bundle[:16]}…",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def change_facts(run: str, what: str, model: RedModel, change: Change) -> dict[str, Any]:
    """What a change came to, as JSON holds it."""
    effect, promise = change.effect, model.promise
    return {
        "run": run,
        "bundle": model.bundle_id,
        "change": what,
        "n_labels": len(model.labels),
        "experts_refitted": list(change.experts),
        "gate_refitted": change.gate,
        "seconds": change.seconds,
        "estimate": None if change.estimate is None else asdict(change.estimate),
        "effect": None if effect is None else asdict(effect),
        "regressions": [] if effect is None else [one.label for one in effect.regressions],
        "beyond_chance": []
        if effect is None
        else [one.label for one in effect.regressions if one.is_beyond_chance],
        "thresholds": None
        if promise is None
        else {"source": promise.source, "stale": promise.stale or None},
        "notes": list(change.notes),
    }


def _fitted(change: Change) -> str:
    if not change.experts:
        return "nothing was fitted"
    n = len(change.experts)
    experts = "1 expert" if n == 1 else f"{n} experts"
    return f"{experts} refitted" + (", and the gate" if change.gate else "")


def _effect(output: Output, effect: Effect) -> None:
    print_ = output.out.print
    if effect.before is not None and effect.after is not None:
        print_(
            f"the other labels: {effect.before:.1%} right before, {effect.after:.1%} after "
            f"({effect.n_rows:,} {KINDS[effect.source]}; {effect.n_lost:,} lost, "
            f"{effect.n_gained:,} gained)",
            soft_wrap=True,
            highlight=False,
        )
    for line in _worse(effect):
        print_(line, markup=False, soft_wrap=True, highlight=False)
    shown = _worth_showing(effect)
    if shown:
        print_(_table(shown))
    for line in _of_bare(effect):
        print_(line, markup=False, soft_wrap=True, highlight=False)


def _worse(effect: Effect) -> Iterator[str]:
    """Labels that lost rows: first those where it is more than chance does."""
    for is_sure, words in ((True, "worse"), (False, "lost rows, but no more than chance may do")):
        found = [one for one in effect.regressions if one.is_beyond_chance is is_sure]
        named = ", ".join(f"{one.label} ({_lost(one)})" for one in found[:N_SHOWN])
        more = f" and {len(found) - N_SHOWN} more" if len(found) > N_SHOWN else ""
        if found:
            yield f"{words}: {named}{more}"


def _lost(one: LabelEffect) -> str:
    gained = f", {one.n_gained} gained" if one.n_gained else ""
    return f"{one.n_lost} of {one.n_rows} rows{gained}"


def _of_bare(effect: Effect) -> Iterator[str]:
    """What is known of new labels that the rows above do not have."""
    for one in effect.own:
        n_right = round(one.after * one.n_rows)
        yield (
            f"{one.label}: no calibration row has it; {n_right} of {one.n_rows} of its own "
            "examples right, cross-fitted: an estimate"
        )
    for name in effect.unknown:
        yield f"{name}: nothing is known of how well it does: no row that you labelled tells"


def _worth_showing(effect: Effect) -> list[LabelEffect]:
    """New and altered labels, those that got worse, and those that got better."""
    new = [one for one in effect.labels if one.is_altered or one.before is None]
    worse = [one for one in effect.regressions if one not in new]
    better = [one for one in effect.labels if one.n_gained > one.n_lost and one not in new]
    better.sort(key=lambda one: (one.n_lost - one.n_gained, one.label))
    return [*new, *worse, *better][:N_SHOWN]


def _table(labels: list[LabelEffect]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3), header_style="dim")
    table.add_column("label")
    for name in ("rows", "before", "after"):
        table.add_column(name, justify="right")
    for one in labels:
        before = "–" if one.before is None else f"{one.before:.0%}"
        style = "red" if one.is_beyond_chance else ""
        table.add_row(_plain(one.label), str(one.n_rows), before, f"{one.after:.0%}", style=style)
    return table


def _plain(text: str) -> str:
    """Without what Rich would take for markup."""
    return text.replace("[", r"\[")
