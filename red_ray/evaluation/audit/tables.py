"""An audit's report as tables of words, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from red_ray.config import LESS_IS_BETTER
from red_ray.evaluation.audit.suite import CATEGORIES
from red_ray.judges.spec import is_simulated

Json = Mapping[str, Any]

NOTHING = "–"
INTERVAL = "95 % interval"
LONGEST_NAME = 30
"""Characters of a judge's name in a table; its whole spec stands in a note."""

CRITERIA = {
    "accuracy": "accuracy",
    "accuracy_offered": "accuracy if offered",
    "success_rate": "readable answers",
    "unreadable_rate": "unreadable",
    "p95_latency_s": "p95 latency",
    "usd_per_correct": "USD per right answer",
}
MEANING = {
    "easy": "the model's first label is right",
    "hard": "the right label is another candidate",
    "none": "the right label is not offered",
}


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its first column holds words, the others figures; `notes` stand below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def grids(report: Json) -> Iterator[Grid]:
    """All tables but the one of the criteria, the one that decides first."""
    yield _ranking(report)
    yield _answers(report)
    yield _effort(report)
    yield _categories(report)
    if any(one["position"] for one in report["judges"]):
        yield _positions(report)
    if report["agreement"]:
        yield _agreement(report)
    yield _providers(report)


def findings(report: Json) -> Grid:
    """Every criterion of every judge."""
    rows = [
        (
            name,
            CRITERIA[found["criterion"]],
            _value(found["criterion"], found["value"]),
            _interval(found["criterion"], found["ci"]),
            _limit(found, "go"),
            _limit(found, "abort"),
            found["outcome"],
        )
        for name, judge in named(report)
        for found in judge["findings"]
    ]
    header = ("judge", "criterion", "found", INTERVAL, "GO", "ABORT", "outcome")
    notes = tuple(
        f"{name}: {CRITERIA[found['criterion']]}: {found['note']}"
        for name, judge in named(report)
        for found in judge["findings"]
        if found["note"]
    )
    return Grid("Criteria, on the held part", header, tuple(rows), notes)


def facts(report: Json) -> Iterator[str]:
    """What a reader has to know before the figures."""
    suite = report["suite"]
    working, held = (sum(counts.values()) for counts in suite["parts"].values())
    yield f"{suite['n']:,} questions: {working:,} working, {held:,} held; the held ones decide"
    said = report["declared"]
    if said["earlier"]:
        before = said["earlier"][-1]["at"]
        yield f"criteria CHANGED {said['at']}: an earlier run here had declared others {before}"
    else:
        yield f"criteria declared {said['at']}, before anybody was asked"
    if any(judge["simulated"] for judge in report["judges"]):
        yield "SIMULATED judges are told the truth: they try the audit, no language model"


def named(report: Json) -> Iterator[tuple[str, Json]]:
    """The judges, best first, each with its rank and a name that fits a table."""
    for rank, judge in enumerate(report["judges"], 1):
        yield f"{rank} {_short(judge['judge'])}", judge


def _short(spec: str) -> str:
    if is_simulated(spec):
        return f"SIMULATED {spec.partition(':')[2]}"
    name = spec.partition("@http")[0]
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _ranking(report: Json) -> Grid:
    rows = []
    for name, judge in named(report):
        held, working = judge["held"], judge["working"]
        rows.append(
            (
                name,
                judge["outcome"],
                _share(held["accuracy"]),
                _interval("accuracy", held["accuracy_ci"]),
                _share(held["accuracy_offered"]),
                _share(working["accuracy"]),
            )
        )
    header = ("judge", "outcome", "accuracy", INTERVAL, "if offered", "working")
    n_held = sum(report["suite"]["parts"]["held"].values())
    meaning = "if offered: where the right label was a candidate; working: on the working part"
    notes = (*_reasons(report), *_particulars(report), meaning)
    return Grid(f"Held part, {n_held:,} questions", header, tuple(rows), notes)


def _reasons(report: Json) -> Iterator[str]:
    """One line for each criterion that a judge's outcome rests on, but for GO."""
    for name, judge in named(report):
        for found in judge["findings"]:
            if found["outcome"] == judge["outcome"] != "GO":
                yield f"{name}: {found['outcome']}, {_reason(found)}"


def _reason(found: Json) -> str:
    kind = found["criterion"]
    line = f"{CRITERIA[kind]} {_value(kind, found['value'])}"
    line += f", GO {_limit(found, 'go')}, ABORT {_limit(found, 'abort')}"
    return f"{line}; {found['note']}" if found["note"] else line


def _particulars(report: Json) -> Iterator[str]:
    for name, judge in named(report):
        if not judge["simulated"] and not name.endswith(judge["judge"]):
            yield f"{name}: asked as {judge['judge']}"
        if judge["model_versions"]:
            yield f"{name}: model {', '.join(judge['model_versions'])}"
        if judge["n_unasked"]:
            n = judge["n_unasked"]
            yield f"{name}: {n:,} questions not asked (beyond the budget, or decided by a person)"


def _answers(report: Json) -> Grid:
    rows = []
    for name, judge in named(report):
        every = judge["all"]
        readable = _share(every["success_rate"]), _interval("", every["success_rate_ci"])
        failed = (f"{every['outcomes'][one]:,}" for one in ("unreadable", "timeout", "error"))
        rows.append((name, *readable, *failed))
    header = ("judge", "readable", INTERVAL, "unreadable", "timed out", "error")
    return Grid("Both parts: answers", header, tuple(rows))


def _effort(report: Json) -> Grid:
    rows = []
    for name, judge in named(report):
        every = judge["all"]
        seconds = (_seconds(one) for one in every["latency_s"].values())
        n_tokens = every["prompt_tokens"] + every["completion_tokens"]
        dollars = (_dollars(every["cost_usd"]), _dollars(every["usd_per_correct"]))
        rows.append((name, *seconds, f"{n_tokens:,}", *dollars))
    header = ("judge", "p50", "p95", "p99", "tokens", "USD", "USD / right")
    notes = ("latency of whole questions, retries and failures included",)
    return Grid("Both parts: latency and price", header, tuple(rows), notes)


def _categories(report: Json) -> Grid:
    rows = tuple((name, *_by_category(judge["all"])) for name, judge in named(report))
    notes = tuple(f"{name}: {meaning}" for name, meaning in MEANING.items())
    return Grid("Both parts: accuracy by category", ("judge", *CATEGORIES), rows, notes)


def _positions(report: Json) -> Grid:
    told = [(name, judge["position"]) for name, judge in named(report) if judge["position"]]
    n_most = max(len(position["answers"]) for _, position in told)
    rows = []
    for name, position in told:
        pairs = zip(position["answers"], position["truths"], strict=True)
        moves = [f"{100 * (answer - truth):+.1f}" for answer, truth in pairs]
        moves += [NOTHING] * (n_most - len(moves))
        rows.append((name, _share(position["moved"]), f"{position['p_value']:.3f}", *moves))
    header = ("judge", "moved", "p", *(f"at {place}" for place in range(1, n_most + 1)))
    notes = (
        f"at 1 to {n_most}: share of answers minus share of truths there, in points, in the",
        "order in which the judge read the candidates; moved: half the sum without signs; p:",
        "chance of as much in a judge that looks at no position",
    )
    return Grid("Both parts: position bias", header, tuple(rows), (" ".join(notes),))


def _agreement(report: Json) -> Grid:
    names = {judge["judge"]: name for name, judge in named(report)}
    rows = []
    for both in report["agreement"]:
        pair = " & ".join(sorted(names[spec] for spec in both["judges"]))
        kappa = NOTHING if both["kappa"] is None else f"{both['kappa']:.2f}"
        rows.append(
            (pair, _share(both["share"]), _interval("", both["interval"]), kappa, f"{both['n']:,}")
        )
    header = ("judges", "same", INTERVAL, "kappa", "of")
    notes = ("over the questions that both answered readably",)
    return Grid("Both parts: same answers", header, tuple(sorted(rows)), notes)


def _providers(report: Json) -> Grid:
    rows = tuple(
        (told["provider"], str(len(told["judges"])), f"{told['requests']:,}", *_by_category(told))
        for told in report["providers"]
    )
    header = ("provider", "judges", "requests", *CATEGORIES)
    return Grid("Both parts: accuracy by provider and category", header, rows)


def _by_category(told: Json) -> Iterator[str]:
    for name in CATEGORIES:
        one = told["categories"][name]
        yield f"{_share(one['accuracy'])} of {one['n']:,}" if one["n"] else NOTHING


def _value(name: str, number: float | None) -> str:
    """A figure as its name asks for."""
    if name.endswith("_s"):
        return _seconds(number)
    return _dollars(number) if name.startswith("usd") else _share(number)


def _interval(name: str, ends: list[float | None] | None) -> str:
    """Both ends; the upper one may be open."""
    if ends is None:
        return NOTHING
    return " – ".join("∞" if end is None else _value(name, end) for end in ends)


def _limit(found: Json, side: str) -> str:
    less = found["criterion"] in LESS_IS_BETTER
    sign = ("≤" if less else "≥") if side == "go" else (">" if less else "<")
    return f"{sign} {_value(found['criterion'], found[side])}"


def _share(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.1%}"


def _dollars(number: float | None) -> str:
    return NOTHING if number is None else f"{number:.4g}"


def _seconds(number: float | None) -> str:
    if number is None:
        return NOTHING
    return f"{number:.2f} s" if number >= 1 else f"{1000 * number:.3g} ms"
