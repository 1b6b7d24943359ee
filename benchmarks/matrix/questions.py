"""The questions that a matrix is run for, answered in figures, or said to be open.

The first five are those of the benchmark that this one follows, the sixth is ours. Differences
are in points of accuracy, paired by seed and row, with their own 95 % interval; "told apart" means
Holm's p-value over all pairs of the task of at most 0.05 (see `compare`). No column is picked for
being best on the reported rows: each pair that a question is about is answered. Stand-ins are no
part of an answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from benchmarks.matrix.cautions import CONSTANT
from benchmarks.matrix.compare import Comparison, Held, Pair
from benchmarks.matrix.intervals import LEVEL, p_told, signed
from benchmarks.matrix.results import Matrix
from benchmarks.matrix.summary import Measured, Summary
from red_ray.core.two_samples import holm

Place = tuple[str, str]
Compared = Mapping[str, Comparison]

MATCH = 0.02
"""Points within which a column matches another: the "LLM LoRA within 2 %" of the benchmark."""

LEAST_ROWS = 5
"""Rows of a label below which its recall says nothing."""

SIZED = ("zero_shot", "few_shot", "lora")
LLM = ("lora", "few_shot", "zero_shot")
RED_RIVALS = ("flat", "setfit", "fine_tune")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and what can be said.

    Attributes:
        text: the question.
        answer: one sentence; begins with "cannot be said: " where it cannot.
        sentences: the figures behind it, one a sentence.
        lacks: why it is not asked: which columns the matrix does not have; else empty.
    """

    text: str
    answer: str
    sentences: tuple[str, ...]
    lacks: str = ""


@dataclass(frozen=True, slots=True)
class _Sources:
    matrix: Matrix
    compared: Compared
    held: Mapping[Place, Held]
    summaries: Mapping[Place, Summary]

    def columns(self, *methods: str) -> list[str]:
        stated = self.matrix.config.columns
        return [one.name for one in stated if one.method in methods and not one.stand_in]

    def paying(self, task: str) -> dict[str, Summary]:
        """Of a task, without majority and prior, which cost nothing and know nothing."""
        stated = self.matrix.config.columns
        names = [c.name for c in stated if c.method not in CONSTANT and not c.stand_in]
        known = self.summaries
        return {name: known[task, name] for name in names if (task, name) in known}


def answered(
    matrix: Matrix,
    compared: Compared,
    held: Mapping[Place, Held],
    summaries: Mapping[Place, Summary],
) -> tuple[Question, ...]:
    """All questions with their answers; the sixth where R.E.D. is a column."""
    found = _Sources(matrix, compared, held, summaries)
    questions = [
        _matching(
            found,
            "Can small LLMs match a fine-tuned encoder on short-text classification? "
            "(LoRA against fine-tuning)",
            "lora",
        ),
        _matching(
            found, "Is few-shot prompting competitive with fine-tuning an encoder?", "few_shot"
        ),
        _sizes(found),
        _efficiency(found),
        _struggles(found),
    ]
    return (*questions, _red(found)) if found.columns("red_ray") else tuple(questions)


def difference_told(found: Pair, a: str = "", b: str = "") -> str:
    """A difference with its interval and corrected p-value."""
    low, high = found.difference.interval
    alone = "; one seed" if len(found.seeds) == 1 else ""
    return (
        f"{a or found.a} against {b or found.b}: {signed(found.difference.value)} points "
        f"({signed(low)} to {signed(high)}; {p_told(found.p_corrected)} corrected{alone})"
    )


def _matching(found: _Sources, text: str, method: str) -> Question:
    """Whether columns of a method match those of fine-tuning: the interval is above -2 points.

    A margin is the interval's to decide, not the p-value's, which is of "no difference".
    """
    ours, theirs = found.columns(method), found.columns("fine_tune")
    lacking = [name for name, have in ((method, ours), ("fine_tune", theirs)) if not have]
    if lacking:
        return _open(text, f"no column but stand-ins has the method {' or '.join(lacking)}")
    verdicts, sentences = _each_pair(found, ours, theirs, _match)
    answer = _counted(
        found,
        verdicts,
        {
            "matches": f"within {100 * MATCH:.0f} points or better",
            "short": f"short by more than {100 * MATCH:.0f} points",
            "open": "left open by the interval",
        },
    )
    return Question(text, answer, tuple(sentences))


def _match(pair: Pair) -> str:
    low, high = pair.difference.interval
    return "matches" if low >= -MATCH else "short" if high < -MATCH else "open"


def _sizes(found: _Sources) -> Question:
    text = "How much does the size of the language model matter?"
    verdicts: Counter[str] = Counter()
    sentences: list[str] = []
    for method in SIZED:
        for task in found.compared:
            sized = [
                (found.summaries[task, name].n_parameters, name)
                for name in found.columns(method)
                if (task, name) in found.summaries
            ]
            for (small, less), (large, more) in combinations(sorted(sized), 2):
                pair = found.compared[task].pair(more, less)
                if small == large or pair is None:
                    continue
                verdict = _better(pair)
                verdicts[verdict] += 1
                sizes = f"{_millions(large)} against {_millions(small)} parameters"
                sentences.append(f"{task}, {method}, {sizes}: {difference_told(pair)}: {verdict}.")
    if not sentences:
        return _open(text, "no two language models of different size have figures on one task")
    answer = _counted(
        found,
        verdicts,
        {
            "better": "the larger is better",
            "worse": "the larger is worse",
            "not told apart": "not told apart",
        },
    )
    return Question(text, answer, tuple(sentences))


def _efficiency(found: _Sources) -> Question:
    """Of each measured figure the columns whose interval reaches the least one's."""
    text = "Which approach is the most efficient in training time, latency and memory?"
    sentences: list[str] = []
    for task in found.compared:
        own = found.paying(task)
        for figure, what, write in (
            ("fit_s", "shortest training", _seconds),
            ("latency_p50_ms", "lowest median latency", _ms),
            ("peak_mb", "least memory", _mb),
        ):
            sentences += _least(task, own, figure, what, write)
    if not sentences:
        return _open(text, "no cell has figures")
    devices = {one.device for one in found.summaries.values()}
    mixed = f" on several devices ({', '.join(sorted(devices))})" if len(devices) > 1 else ""
    fronts = [_front_told(found, task) for task in found.compared]
    answer = f"By accuracy and latency together{mixed}, these are beaten by none: "
    return Question(text, answer + "; ".join(filter(None, fronts)) + ".", tuple(sentences))


def _least(
    task: str,
    own: Mapping[str, Summary],
    figure: str,
    what: str,
    write: Callable[[Measured], str],
) -> Iterator[str]:
    known = {name: one.figures[figure] for name, one in own.items() if figure in one.figures}
    if not known:
        return
    best = min(known, key=lambda name: known[name].value)
    ends = known[best].interval
    ties = [
        f"{name} {write(one)}"
        for name, one in sorted(known.items(), key=lambda item: item[1].value)
        if name != best and _reaches(one, ends)
    ]
    tied = f"; not told apart by the intervals: {', '.join(ties)}" if ties else ""
    open_ = " (one seed: no interval, so nothing is told apart)" if ends is None else ""
    yield f"{task}, {what}: {best} {write(known[best])}{open_}{tied}."


def _reaches(one: Measured, ends: tuple[float, float] | None) -> bool:
    return ends is not None and (one.interval or (one.value, one.value))[0] <= ends[1]


def _front_told(found: _Sources, task: str) -> str:
    points = {
        name: (one.figures["latency_p50_ms"].value, one.figures["accuracy"].value)
        for name, one in found.paying(task).items()
    }
    names = pareto_front(points)
    return f"on {task} {', '.join(names)} (by the means)" if names else ""


def pareto_front(points: Mapping[str, tuple[float, float]]) -> tuple[str, ...]:
    """Names that no other beats, by price ascending.

    Args:
        points: price (less is better) and worth (more is better) of each name.

    A point is beaten by one that is no dearer and no worse, and one of the two better.
    """
    kept = [
        name
        for name, (price, worth) in points.items()
        if not any(
            other_price <= price
            and other_worth >= worth
            and (other_price, other_worth) != (price, worth)
            for other_price, other_worth in points.values()
        )
    ]
    return tuple(sorted(kept, key=lambda name: points[name]))


def _struggles(found: _Sources) -> Question:
    text = "Where do language models struggle against a fine-tuned encoder?"
    theirs, ours = found.columns("fine_tune"), found.columns(*LLM)
    if not theirs or not ours:
        return _open(text, "it takes a column of a language model and one of method fine_tune")
    sentences: list[str] = []
    labels: Counter[str] = Counter()
    for task in found.compared:
        for one in ours:
            for other in theirs:
                told, worst = _worst_label(found, task, one, other)
                sentences += told
                labels.update([f"{worst!r} of {task}"] if worst else [])
    if not sentences:
        return _open(text, "no such pair has figures on a task")
    if not labels:
        answer = (
            "cannot be said: of no pair is the recall of any label surely below the encoder's "
            "(sign tests corrected for the number of labels)"
        )
        return Question(text, answer, tuple(sentences))
    worst_told = ", ".join(
        f"{label} ({n} pair{'' if n == 1 else 's'})" for label, n in labels.most_common(5)
    )
    return Question(text, f"Most of all at these labels: {worst_told}.", tuple(sentences))


def _worst_label(found: _Sources, task: str, one: str, other: str) -> tuple[list[str], str | None]:
    """What two columns get wrong, and the label whose recall surely falls the most short."""
    a, b = found.held.get((task, one)), found.held.get((task, other))
    pair = found.compared[task].pair(one, other)
    if a is None or b is None or pair is None:
        return [], None
    wrong = pair.overlap
    told = f"{task}, {one} against {other}: wrong alone on {_percent(wrong.only_a_wrong.value)} "
    told += f"({_ends(wrong.only_a_wrong.interval)}) of the rows, the encoder alone on "
    told += f"{_percent(wrong.only_b_wrong.value)} ({_ends(wrong.only_b_wrong.interval)}), both on "
    told += _percent(wrong.both_wrong.value)
    losses = _losses(a, b, pair.seeds)
    if not losses:
        return [f"{told}."], None
    surely = [loss for loss in losses if loss.p <= LEVEL]
    worst = min(surely or losses, key=lambda loss: loss.points)
    if worst.points < 0:
        told += f"; recall of {worst.label!r} {signed(worst.points)} points "
        told += f"({p_told(worst.p)}, corrected for {len(losses)} labels)"
    unreadable = _percent(float(a.unreadable.mean()))
    return [f"{told}; unreadable: {unreadable}."], worst.label if surely else None


class _Loss(NamedTuple):
    """Of a label: recall of one column less that of another, and p of "no less", corrected."""

    label: str
    points: float
    p: float


def _losses(a: Held, b: Held, seeds: Sequence[int]) -> list[_Loss]:
    """Of each label that has rows enough, by a sign test over its rows.

    A row is won or lost by the mean over the seeds. Exact, for a label may have few rows.
    """
    true = np.array(a.predictions[0].true)
    at_a, at_b = ([one.seeds.index(seed) for seed in seeds] for one in (a, b))
    moved = (a.right[at_a].astype(float) - b.right[at_b].astype(float)).mean(axis=0)
    labels = [label for label in sorted(set(true)) if (true == label).sum() >= LEAST_ROWS]
    own = [moved[true == label] for label in labels]
    won, lost = (np.array([(sign * rows > 0).sum() for rows in own]) for sign in (1, -1))
    p = holm(binom.cdf(won, won + lost, 0.5))
    return [
        _Loss(str(label), float(rows.mean()), float(one))
        for label, rows, one in zip(labels, own, p, strict=True)
    ]


def _red(found: _Sources) -> Question:
    text = "Does R.E.D. beat flat logistic regression, SetFit or a fine-tuned encoder?"
    ours, rivals = found.columns("red_ray"), found.columns(*RED_RIVALS)
    if not rivals:
        return _open(text, f"no column has a method of {', '.join(RED_RIVALS)}")
    verdicts, sentences = _each_pair(found, ours, rivals, _better, _beside)
    answer = _counted(
        found,
        verdicts,
        {
            "better": "R.E.D. is better",
            "worse": "R.E.D. is worse",
            "not told apart": "not told apart",
        },
    )
    return Question(text, answer, tuple(sentences))


def _beside(found: _Sources, task: str, a: str, b: str) -> str:
    """Training time, latency and memory of both."""
    one, other = found.summaries[task, a].figures, found.summaries[task, b].figures
    parts = []
    for figure, write in (("fit_s", _seconds), ("latency_p50_ms", _ms), ("peak_mb", _mb)):
        if figure in one and figure in other:
            parts.append(f"{write(one[figure])} against {write(other[figure])}")
    return f"; fit, latency, memory: {'; '.join(parts)}"


def _each_pair(
    found: _Sources,
    ours: Sequence[str],
    theirs: Sequence[str],
    judged: Callable[[Pair], str],
    more: Callable[[_Sources, str, str, str], str] | None = None,
) -> tuple[Counter[str], list[str]]:
    verdicts: Counter[str] = Counter()
    sentences = []
    for task, comparison in found.compared.items():
        for a in ours:
            for b in theirs:
                if not _both_run(found, task, a, b):
                    continue
                pair = comparison.pair(a, b)
                verdict = "hole" if pair is None else judged(pair)
                verdicts[verdict] += 1
                if pair is None:
                    told = f"{task}, {a} against {b}: cannot be said: {_why(found, task, a, b)}"
                else:
                    told = f"{task}, {difference_told(pair)}: {_WORDS.get(verdict, verdict)}"
                    told += more(found, task, a, b) if more else ""
                sentences.append(f"{told}.")
    return verdicts, sentences


_WORDS = {
    "matches": f"matches within {100 * MATCH:.0f} points",
    "short": f"short by more than {100 * MATCH:.0f} points",
    "open": "open",
}


def _both_run(found: _Sources, task: str, a: str, b: str) -> bool:
    columns = (found.matrix.config.column(name) for name in (a, b))
    return all(column.tasks is None or task in column.tasks for column in columns)


def _why(found: _Sources, task: str, a: str, b: str) -> str:
    refused = found.compared[task].refused
    holes = {cell.column: why for cell, why in found.matrix.holes if cell.task == task}
    holes.update(refused)
    whys = [f"{name} is a hole ({holes[name]})" for name in (a, b) if name in holes]
    return "; ".join(whys) or "they share no seed"


def _better(pair: Pair) -> str:
    if not pair.told_apart:
        return "not told apart"
    return "better" if pair.difference.value > 0 else "worse"


def _counted(found: _Sources, verdicts: Counter[str], words: Mapping[str, str]) -> str:
    """The answer over all comparisons; open where none of them is decided."""
    n = sum(verdicts.values())
    told = [f"{word} in {verdicts[key]}" for key, word in words.items() if verdicts[key]]
    told += [f"holes in {verdicts['hole']}"] if verdicts["hole"] else []
    if not n:
        return "cannot be said: no such two columns run on one task"
    undecided = verdicts["open"] + verdicts["hole"]
    head = "cannot be said: of" if undecided == n else "Of"
    alone = undecided < n and any(one.n_of_one_seed for one in found.compared.values())
    rest = " Where there is one seed, of these trainings alone." if alone else ""
    return f"{head} {n} comparison{'' if n == 1 else 's'}: {', '.join(told)}.{rest}"


def _open(text: str, why: str) -> Question:
    return Question(text, f"cannot be said: {why}.", (), why)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _ends(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _millions(n: int) -> str:
    return f"{n / 1e6:,.0f} M" if n >= 1e7 else f"{n / 1e6:,.2f} M"


def _seconds(one: Measured) -> str:
    return _with_ends(one, "s", 1)


def _ms(one: Measured) -> str:
    return _with_ends(one, "ms", 1)


def _mb(one: Measured) -> str:
    return _with_ends(one, "MB", 0)


def _with_ends(one: Measured, unit: str, digits: int) -> str:
    told = f"{one.value:,.{digits}f} {unit}"
    if one.interval is None:
        return told
    low, high = one.interval
    return f"{told} ({low:,.{digits}f} to {high:,.{digits}f})"
