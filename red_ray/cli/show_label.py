"""Changes of labels on a terminal: what was refitted, and what became of the other labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from red_ray.calibration import WORDS
from red_ray.cli.console import Output

if TYPE_CHECKING:
    from red_ray.history import Entry
    from red_ray.labels import Change, Effect, LabelEffect
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


def show_undo(output: Output, run: str, entry: Entry, n_left: int) -> None:
    """Print which state is back."""
    output.result({"run": run, "bundle": entry.bundle, "undone": entry.change, "n_left": n_left})
    if output.as_json:
        return
    output.out.print(f"undone: {entry.change}", markup=False, soft_wrap=True, highlight=False)
    states = "1 earlier state" if n_left == 1 else f"{n_left} earlier states"
    output.out.print(
        f"bundle {entry.bundle[:16]}… is back; {states} left", soft_wrap=True, highlight=False
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
            f"({effect.n_rows:,} {KINDS[effect.source]})",
            soft_wrap=True,
            highlight=False,
        )
    worse = effect.regressions
    if worse:
        named = ", ".join(one.label for one in worse[:N_SHOWN])
        more = f" and {len(worse) - N_SHOWN} more" if len(worse) > N_SHOWN else ""
        print_(f"worse: {named}{more}", markup=False, soft_wrap=True, highlight=False)
    shown = _worth_showing(effect)
    if shown:
        print_(_table(shown))


def _worth_showing(effect: Effect) -> list[LabelEffect]:
    """New and altered labels, those that got worse, and those that got better."""
    new = [one for one in effect.labels if one.before is None]
    better = [one for one in effect.labels if one.before is not None and one.after > one.before]
    better.sort(key=lambda one: (one.n_lost - one.n_gained, one.label))
    return [*new, *effect.regressions, *better][:N_SHOWN]


def _table(labels: list[LabelEffect]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3), header_style="dim")
    table.add_column("label")
    for name in ("rows", "before", "after"):
        table.add_column(name, justify="right")
    for one in labels:
        before = "–" if one.before is None else f"{one.before:.0%}"
        style = "red" if one.is_regression else ""
        table.add_row(_plain(one.label), str(one.n_rows), before, f"{one.after:.0%}", style=style)
    return table


def _plain(text: str) -> str:
    """Without what Rich would take for markup."""
    return text.replace("[", r"\[")
