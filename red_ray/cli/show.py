"""A scorecard on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from red_ray.calibration import JUDGED, WORDS
from red_ray.cli.console import Output

Card = Mapping[str, Any]

STAGES = {"encode": "encode", "start": "start workers", "fit": "fit", "judge_wait": "judge"}
RIVALS = {
    "flat": "flat: logistic regression, the same rows",
    "flat_seed_rows": "flat, on the rows you labelled",
    "experts_only": "experts alone, no router",
    "majority": "always the most frequent label",
    "oracle_routed": "ceiling: the true label names the expert",
}


def show_run(output: Output, run: Path | str, result: Card) -> None:
    """Print the scorecard, or the estimates where no test rows were given."""
    output.result(result)
    if output.as_json:
        return
    if "accuracy" in result:
        _scorecard(output.out, result)
    else:
        output.out.print(_estimated(result))
        if result.get("judge"):
            output.out.print(_grid(_judge(result["judge"])))
    output.out.print(
        f"\nbundle {result['bundle'][:16]}…   report {run}/report.html",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _estimated(result: Card) -> str:
    accuracy, by = result["estimate"]["accuracy"], result.get("labelled_by", "user")
    if by == "user":
        told = f"estimated accuracy {accuracy:.1%} (cross-fitted training rows; give --test for a "
        return f"{told}scorecard)"
    return (
        f"agrees with {accuracy:.1%} of the labels of its hardest rows, {JUDGED[by]}: no estimate "
        "of accuracy (give --test for a scorecard)"
    )


def _kind(router: Card) -> str:
    """What its promise is called, and by whose labels."""
    by = JUDGED.get(router.get("labelled_by", "user"))
    return WORDS[router["source"]] + (f" {by}" if by else "")


def _scorecard(console: Console, card: Card) -> None:
    _accuracy(console, card)
    calibration = card["calibration"]
    facts = [
        ("macro F1", _rate(card, "macro_f1")),
        ("calibration error (ECE)", _rate(calibration, "ece")),
        *_judged(calibration),
        ("answered with a label", _rate(card, "answered_share")),
        ("accuracy where answered", _rate(card, "accuracy_decided")),
    ]
    if card["none"]:
        facts += _none(card["none"])
    facts += _router(card["router"]) if card["router"] else []
    facts += _judge(card["judge"]) if card["judge"] else []
    dropped = card["leaks"]["train_test_dropped"]
    if dropped:
        facts.append(("test rows dropped, seen in training", str(dropped)))
    timing = card["timing_s"]
    parts = ", ".join(f"{words} {timing.get(key, 0.0):.1f}" for key, words in STAGES.items())
    facts.append(("seconds", f"{timing.get('total', 0.0):.1f} in all: {parts}"))
    console.print(_grid(facts))


def _judged(calibration: Card) -> list[tuple[str, str]]:
    by = JUDGED.get(calibration.get("labelled_by", "user"))
    return [("how sure to be was fitted", by)] if by else []


def _grid(facts: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 3))
    grid.add_column(no_wrap=True)
    for name, value in facts:
        grid.add_row(f"[dim]{name}[/]", value)
    return grid


def _accuracy(console: Console, card: Card) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 3), header_style="dim")
    table.add_column(f"{card['n_test']:,} test rows, {card['n_labels']} labels")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_row(
        "[bold]red_ray[/]", f"[bold]{card['accuracy']:.1%}[/]", _interval(card, "accuracy")
    )
    for name, words in RIVALS.items():
        if card["baselines"][name] is None:  # nobody but the judge labelled a row
            continue
        style = "dim" if name in ("oracle_routed", "majority") else ""
        values = card["baselines"]
        table.add_row(words, f"{values[name]:.1%}", _interval(values, name), style=style)
    console.print(table)
    console.print()


def _none(none: Card) -> list[tuple[str, str]]:
    return [
        ("none of the above, AUROC", _number(none, "auroc")),
        ("said where no label fits", _rate(none, "recall")),
        ("said where one fits (false alarm)", _rate(none, "false_alarm")),
    ]


def _router(router: Card) -> list[tuple[str, str]]:
    kind = _kind(router)
    goals = ", ".join(f"{name} {share:g}" for name, share in router["goals"].items())
    return [
        (f"goal ({kind}, confidence {router['confidence']:g})", goals),
        ("errors escalated", _rate(router, "recall")),
        ("texts escalated", _rate(router, "positive_rate")),
        ("right where answered alone", _rate(router, "accept_precision")),
    ]


def _judge(judge: Card) -> list[tuple[str, str]]:
    spec = judge["spec"]
    who = f"{spec}, SIMULATED: no language model was asked" if spec.startswith("sim") else spec
    known = judge["from_ledger"]
    calls = f"{judge['calls']:,}" + (f", {known:,} of them by an earlier run" if known else "")
    facts = [("judge", who), ("calls", calls)]
    if judge["calls"]:
        facts.append(("labels per call", _rate(judge, "labels_per_call")))
    if judge["label_precision"] is not None:
        facts.append(("labels that were right", _rate(judge, "label_precision")))
    if judge["n_gold"]:
        n_gold = f"[dim]of {judge['n_gold']:,}[/]"
        facts.append(("planted questions right", f"{_rate(judge, 'gold_accuracy')}   {n_gold}"))
    own = " of this run's own calls" if known else ""
    if judge["cost_usd"]:
        facts.append(("cost", f"{judge['cost_usd']:,.4f} USD for {judge['tokens']:,} tokens{own}"))
    elif judge["tokens"]:
        free = " (free)" if judge["cost_usd"] == 0 else ""
        facts.append(("tokens", f"{judge['tokens']:,}{own}{free}"))
    bad = judge["unreadable"] + judge["failed"]
    facts += [("without an answer", str(bad))] if bad else []
    trouble = _trouble(judge["results"] or {})
    return facts + ([("requests that went wrong", trouble)] if trouble else [])


def _trouble(results: Mapping[str, int]) -> str:
    wrong = {word: n for word, n in results.items() if word not in ("label", "none")}
    return ", ".join(f"{n:,} {word}" for word, n in sorted(wrong.items()))


def _rate(card: Card, name: str) -> str:
    return "–" if card[name] is None else f"{card[name]:.1%}   {_interval(card, name)}"


def _number(card: Card, name: str) -> str:
    low, high = card[f"{name}_ci"]
    return f"{card[name]:.3f}   [dim]{low:.3f} – {high:.3f}[/]"


def _interval(card: Card, name: str) -> str:
    interval = card.get(f"{name}_ci")
    return f"[dim]{interval[0]:.1%} – {interval[1]:.1%}[/]" if interval else ""
