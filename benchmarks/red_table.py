"""The table of the R.E.D. reference, in its columns, by an honest protocol and by its own.

Every judge is simulated. The whole table is `results/red_table.md`, that of docs/measured.md
`results/red_table_short.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import RESULTS, Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, encoder_of, job_of, train_alone
from benchmarks.judge_loop import train
from benchmarks.red_data import SEED_TEXTS, has_honest_test, load
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.metrics import class_report
from red_ray.data.inputs import Inputs
from red_ray.encoding import CachedEncoder
from red_ray.evaluation.details import test_details
from red_ray.evaluation.predictions import Predictions, predict_rows
from red_ray.evaluation.scorecard import RunFacts, scorecard
from red_ray.model import RedModel
from red_ray.training import Trained
from red_ray.types import Iteration

SETS = ("banking77", "clinc150", SEED_TEXTS)
PER_LABEL = (30, 50, 100)
STOP_MODES = ("informative_only", "informative_then_all_predicted")
ACCURACIES = (0.95, 0.9, 0.8)
USUAL = ("logistic_regression", 10)
"""Expert and iterations of all cells but a few."""
NO_TEST = "no honest test set"
RAN_OUT = "no_informative"
ORACLE = "oracle-routed (the seed's protocol; a ceiling)"

Ints = NDArray[np.int64]
Done = Sequence[tuple[Cell, Result]]


def run(cell: Cell) -> Result:
    """A cell's figures; the second stop mode runs only where it can differ from the first."""
    informative, _ = STOP_MODES
    if cell["stop_mode"] != informative:
        result = one_run(**{**cell, "stop_mode": informative})
        if result["stopped"] != RAN_OUT:
            # Until the informative texts run out, the two modes are one loop.
            return {**result, "same run as": informative}
    return one_run(**cell)


@lru_cache(maxsize=1)
def one_run(**cell: Any) -> Result:
    """One run of the loop, its figures by both protocols, and its history."""
    use_one_blas_thread()
    config, inputs, test = load(cell["data"], cell["per_label"], cell["seed"], settings(cell))
    encoder = encoder_of(config)
    # The store answers from here on, so that no time below depends on which cell came first.
    encoder.encode([*inputs.train.texts, *inputs.pool, *test.rows.texts])
    start = perf_counter()
    trained, _ = train(job_of(config, inputs, pool=True), encoder, inputs)
    total_s = perf_counter() - start
    rounds = with_precision(trained, inputs)
    rows = predict_rows(trained.model, test.rows.texts, test.rows.labels, (), encoder)
    facts = RunFacts(rounds, config.judge.spec, test.n_dropped, trained.timing_s)
    card = scorecard(trained.model, rows, facts)
    return {
        "rows": {"train": len(inputs.train), "pool": len(inputs.pool), "test": len(test.rows)},
        **honest(card, before(cell["data"], cell["per_label"], cell["seed"], cell["expert"])),
        **oracle_routed(trained.model, rows, encoder),
        **asked(rounds),
        "label precision": card["judge"]["label_precision"],
        "total s": total_s,
        "stopped": trained.stop_reason,
        "iterations": [history(one) for one in rounds],
        "subsets": test_details(trained.model, rows)["experts"],
        "scorecard": card,
    }


def settings(cell: Cell) -> dict[str, object]:
    """What the cell overrides; all else is as shipped."""
    return {
        "expert": {"kind": cell["expert"]},
        "judge": {"spec": f"simulated:{cell['judge']}"},
        "loop": {"stop_mode": cell["stop_mode"], "max_iterations": cell["iterations"]},
    }


def honest(card: Result, initial: Predictions) -> Result:
    """The model chooses expert and label by itself, on test rows that nothing has seen."""
    return {
        "accuracy": card["accuracy"],
        "f1": card["f1_weighted"],
        "precision": card["precision_weighted"],
        "flat": card["baselines"]["flat"],
        "initial accuracy": share(initial.predicted, initial.true),
        "oracle initial": share(initial.rivals["oracle_routed"], initial.true),
    }


def oracle_routed(model: RedModel, rows: Predictions, encoder: CachedEncoder) -> Result:
    """The true label names the expert; `flat` is told the same subset."""
    chosen = rows.rivals["oracle_routed"]
    report = class_report(rows.true, chosen, len(model.labels))
    flat = flat_in_subset(model, encoder.encode(rows.texts), rows.true)
    return {
        "oracle accuracy": share(chosen, rows.true),
        "oracle f1": report.f1_weighted,
        "oracle precision": report.precision_weighted,
        "oracle flat": share(flat, rows.true),
    }


def flat_in_subset(model: RedModel, vectors: NDArray[np.float32], true: Ints) -> Ints:
    """The flat model's best label among those of the true label's subset."""
    if model.gate is None:
        raise ValueError("the run has no gate, so no flat model on its rows")
    scores, chosen = model.gate.score(vectors)[:, :-1], np.full(len(true), -1)
    for subset in model.subsets:
        own, labels = np.isin(true, subset), np.array(subset)
        chosen[own] = labels[scores[np.ix_(own, labels)].argmax(axis=1)]
    return chosen


def share(predicted: Ints, true: Ints) -> float:
    return float((predicted == true).mean())


@lru_cache(maxsize=1)
def before(data: str, per_label: int, seed: int, expert: str) -> Predictions:
    """Of the initial experts, which the seed scores; the same for all judges and stop modes."""
    config, inputs, test = load(data, per_label, seed, {"expert": {"kind": expert}})
    encoder = encoder_of(config)
    model = train_alone(job_of(config, inputs, pool=True), encoder).model
    return predict_rows(model, test.rows.texts, test.rows.labels, (), encoder)


def with_precision(trained: Trained, inputs: Inputs) -> tuple[Iteration, ...]:
    """The loop's history with the share of its labels that are right."""
    model, start, rounds = trained.model, trained.model.n_seed, []
    for one in trained.iterations:
        added = range(start, start + one.n_labelled)
        right = [
            inputs.hidden.of(model.example_texts[row]) == model.labels[model.example_labels[row]]
            for row in added
        ]
        rounds.append(replace(one, label_precision=float(np.mean(right)) if right else None))
        start += one.n_labelled
    return tuple(rounds)


def asked(rounds: Sequence[Iteration]) -> Result:
    """The seed's figures of its loop; its average rate is the mean over iterations."""
    return {
        "n iterations": len(rounds),
        "validated": sum(one.n_labelled for one in rounds),
        "validation rate": float(np.mean([rate(one) for one in rounds])) if rounds else 0.0,
    }


def rate(one: Iteration) -> float:
    """Answers that name a label, of all that can be read."""
    return one.n_labelled / max(1, one.n_labelled + one.n_none)


def history(one: Iteration) -> Result:
    """A line of the seed's table of iterations."""
    seconds = one.score_s + one.acquire_s + one.judge_s + one.fit_s + one.recalibrate_s
    return {
        "iteration": one.iteration,
        "phase": one.phase,
        "asked": one.n_asked,
        "validated": one.n_labelled,
        "validation rate": rate(one),
        "label precision": one.label_precision,
        "time s": seconds,
        "s per validated": seconds / one.n_labelled if one.n_labelled else None,
    }


HONEST = (
    ("accuracy %", "accuracy", 100, 2),
    ("F1", "f1", 1, 4),
    ("precision", "precision", 1, 4),
    ("flat, same rows, %", "flat", 100, 2),
    ("validated", "validated", 1, 0),
    ("validation rate %", "validation rate", 100, 1),
    ("total s", "total s", 1, 1),
)
BY_ORACLE = (
    ("accuracy %", "oracle accuracy", 100, 2),
    ("F1", "oracle f1", 1, 4),
    ("precision", "oracle precision", 1, 4),
    ("flat, told the subset, %", "oracle flat", 100, 2),
    ("initial experts, as the seed scores, %", "oracle initial", 100, 2),
)
MORE = (
    ("before the judge %", "initial accuracy", 100, 2),
    ("labels that are right %", "label precision", 100, 1),
    ("iterations", "n iterations", 1, 0),
)
Columns = tuple[tuple[str, str, int, int], ...]

NOTES = f"""# The seed's table

No language model was asked: every judge is simulated, knows the label and errs at the rate stated.
Figures with ± are means of three seeds and their 95 % interval, the others one seed. A label with
fewer rows than asked for gives all it has. *Validated*: texts whose label the judge named among
five candidates; the *validation rate* is the mean over iterations. *Total* and per-iteration times
are without encoding (the store answers) and without a judge's latency. *flat*: one logistic
regression on exactly the rows that the model ended with. Where the informative texts did not run
out, `{STOP_MODES[1]}` is the same loop as `{STOP_MODES[0]}` and was not run again.
"""


def short(done: Done) -> str:
    """The short one: one simulated judge by both protocols, then the accuracy with all of them."""
    keys = [key for key in KEYS if key[2:4] == (0.9, STOP_MODES[0])]
    lines = list(header("honest; simulated judge right 90 %", HONEST))
    lines += [line(done, key, _name(key), HONEST) for key in keys]
    lines += ["", *header(f"{ORACLE}; simulated judge right 90 %", BY_ORACLE)]
    lines += [line(done, key, _name(key), BY_ORACLE) for key in keys]
    return "\n".join([*lines, "", *by_judge(done)])


def by_judge(done: Done) -> Iterator[str]:
    """Honest accuracy with every simulated judge and in both stop modes."""
    ways = [(accuracy, stop) for stop in STOP_MODES for accuracy in ACCURACIES]
    names = [f"{accuracy:.0%}, {stop}" for accuracy, stop in ways]
    yield from header("honest accuracy %; simulated judge right", (), *names)
    for data in SETS:
        for per_label in PER_LABEL:
            keys = [(data, per_label, *way, *USUAL) for way in ways]
            cells = [figure(_of(done, key), "accuracy", 100, 2) for key in keys]
            yield row(f"{data}, {per_label}", keys[0], cells)


def tables(done: Done) -> str:
    """The whole table; the short one is written on the way."""
    (RESULTS / "red_table_short.md").write_text(short(done) + "\n")
    return "\n".join([*whole(done), *per_iteration(done), *per_subset(done)])


def whole(done: Done) -> Iterator[str]:
    """Every kind of cell by both protocols."""
    yield NOTES
    yield "## Honest\n"
    yield from header("data, per class", HONEST + MORE, "test rows (dropped)", "stopped by")
    for key in KEYS:
        facts = (_all(_of(done, key), _test_rows), _all(_of(done, key), _stopped))
        yield line(done, key, _name(key, judge=True), HONEST + MORE, *facts)
    yield f"\n## {ORACLE.capitalize()}\n"
    yield from header("data, per class", BY_ORACLE)
    for key in KEYS:
        yield line(done, key, _name(key, judge=True), BY_ORACLE)


def per_iteration(done: Done) -> Iterator[str]:
    """The seed's table of iterations, of the first seed; the others' are in their cells."""
    columns = (
        *("iteration", "phase", "asked", "validated", "validation rate %"),
        *("labels that are right %", "time s", "s per validated text"),
    )
    yield "\n## Per iteration (seed 0)"
    for cell, result in _first_seed(done):
        yield from _folded(cell, columns)
        for one in result["iterations"]:
            shown = (
                str(one["iteration"]),
                one["phase"],
                str(one["asked"]),
                str(one["validated"]),
                _number(one["validation rate"], 100, 1),
                _number(one["label precision"], 100, 1),
                _number(one["time s"], 1, 2),
                _number(one["s per validated"], 1, 4),
            )
            yield "| " + " | ".join(shown) + " |"
        yield "\n</details>"


def per_subset(done: Done) -> Iterator[str]:
    """The seed's table of subsets after the final refit, of the first seed."""
    columns = (
        *("subset", "labels", "rows", "noise rows"),
        *("accuracy inside (oracle-routed) %", "honest accuracy %"),
    )
    yield "\n## Per subset after the final refit (seed 0)"
    for cell, result in _first_seed(done):
        yield from _folded(cell, columns)
        for one in result["subsets"]:
            shown = (
                one["expert"],
                ", ".join(one["labels"]),
                str(one["n_rows"]),
                str(one["n_noise"]),
                _number(one["accuracy_inside"], 100, 1),
                _number(one["accuracy"], 100, 1),
            )
            yield "| " + " | ".join(shown) + " |"
        yield "\n</details>"


def header(first: str, columns: Columns, *more: str) -> Iterator[str]:
    names = [first, *(name for name, *_ in columns), *more]
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)


def line(done: Done, key: Key, name: str, columns: Columns, *more: str) -> str:
    """One kind of cell: a mean and its interval where there are seeds, else the one figure."""
    found = _of(done, key)
    figures = [figure(found, name_of, scale, digits) for _, name_of, scale, digits in columns]
    return row(name, key, [*figures, *more])


def row(name: str, key: Key, cells: list[str]) -> str:
    if not has_honest_test(key[0], key[1]):
        cells = [NO_TEST, *["–"] * (len(cells) - 1)]
    return f"| {name} | " + " | ".join(cells) + " |"


def figure(found: Sequence[Result], name: str, scale: float, digits: int) -> str:
    values = [r[name] for r in found if r[name] is not None]
    return mean_interval(values, scale, digits) if values else "–"


def _first_seed(done: Done) -> Iterator[tuple[Cell, Result]]:
    return ((cell, result) for cell, result in done if cell["seed"] == SEEDS[0])


def _folded(cell: Cell, columns: Sequence[str]) -> Iterator[str]:
    yield f"\n<details><summary>{_name(_key(cell), judge=True)}</summary>\n"
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)


def _number(value: float | None, scale: float, digits: int) -> str:
    return "–" if value is None else f"{value * scale:.{digits}f}"


def _all(found: Sequence[Result], text: Callable[[Result], str]) -> str:
    """What holds of all seeds, or each that differs."""
    return ", ".join(sorted({text(result) for result in found})) or "–"


def _test_rows(result: Result) -> str:
    return f"{result['rows']['test']} ({result['scorecard']['leaks']['train_test_dropped']})"


def _stopped(result: Result) -> str:
    same = result.get("same run as")
    return f"{result['stopped']} (the same run as {same})" if same else f"{result['stopped']}"


Key = tuple[str, int, float, str, str, int]
"""All that names a cell but the seed."""


def _key(cell: Cell) -> Key:
    data, per_label, judge = cell["data"], cell["per_label"], cell["judge"]
    return data, per_label, judge, cell["stop_mode"], cell["expert"], cell["iterations"]


def _of(done: Done, key: Key) -> list[Result]:
    return [result for cell, result in done if _key(cell) == key]


def _name(key: Key, *, judge: bool = False) -> str:
    data, per_label, accuracy, stop, expert, iterations = key
    parts = [data, str(per_label)]
    parts += [f"simulated judge {accuracy:.0%}", stop] if judge else []
    parts += ["random forest"] if expert == "random_forest" else []
    parts += [f"up to {iterations} iterations"] if iterations != 10 else []
    return ", ".join(parts)


def _keys() -> Iterator[Key]:
    for data in SETS:
        for per_label in PER_LABEL:
            for accuracy in ACCURACIES:
                for stop in STOP_MODES:
                    yield data, per_label, accuracy, stop, *USUAL
            if per_label == PER_LABEL[0]:
                yield data, per_label, 0.9, STOP_MODES[0], "logistic_regression", 50
                yield data, per_label, 0.9, STOP_MODES[0], "random_forest", 10


def _cells() -> Iterator[Cell]:
    """One seed of all, the others where there are three; the forests last, which take longest."""
    names = ("data", "per_label", "judge", "stop_mode", "expert", "iterations")
    kept = [key for key in KEYS if has_honest_test(key[0], key[1])]
    forests = [key for key in kept if key[4] == "random_forest"]
    again = [key for key in kept if key[1] == PER_LABEL[0] and key[4:] == USUAL]
    first = [key for key in kept if key not in forests]
    for seed, keys in ((0, first), *((seed, again) for seed in SEEDS[1:]), (0, forests)):
        for key in keys:
            yield dict(zip(names, key, strict=True)) | {"seed": seed}


KEYS = tuple(_keys())
CELLS = list(_cells())

if __name__ == "__main__":
    main(Benchmark("red_table", CELLS, run, tables))
