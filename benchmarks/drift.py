"""Is drift named, with the right experts, and is none named where there is none.

Models of Banking77 and CLINC150 at 30 per label, five labels held out. All other texts of the
public files, those trained on aside, are one population. Each draw splits it anew: one part is the
reference (a run's pool), recent texts come from the other, so that without a shift both are drawn
alike. Shift A triples the share of a label drawn at random. Shift B lets a label arrive that the
model does not know, as a share of the texts; the right experts are those that hold its three
nearest labels (by the mean embeddings of all its rows). CLINC150's out-of-scope texts arrive too:
no one topic, and so without a right expert.

The thresholds come from `escalate_at_most=0.2` on cross-fitted rows, so that every comparison is
made. Level 0.01 for a whole report, all settings as they stand.

A looped run is held against its own pool, as the command does it. Half of the population is its
training file, of which 10 rows per label are drawn and the rest is the pool, about whose texts a
SIMULATED judge, right 90 % of the time, is asked 500 questions. Recent texts come from the other
half. Each model has one pool, so that its draws share what is by chance of that; there are two to a
cell.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.cells import ALGORITHM, Benchmark, Cell, Result, main
from benchmarks.data import SEEDS, data_folder, encoder_of, job_of, train_alone
from benchmarks.judge_loop import train
from red_ray.calibration import with_goal
from red_ray.config import Goal, RunConfig, load_config
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.text import text_key
from red_ray.crossfit_file import load_crossfit, save_crossfit
from red_ray.data.inputs import Inputs, draw_samples
from red_ray.data.prepare import HiddenLabels, LabelledRows, clean_labelled
from red_ray.data.splits import sample_per_class
from red_ray.data.tables import read_table
from red_ray.encoding import CachedEncoder
from red_ray.evaluation.drift import compare, find_drift
from red_ray.evaluation.drift_reference import Reference, own_reference
from red_ray.evaluation.drift_report import LABEL, TOPIC, DriftReport, DriftSettings
from red_ray.evaluation.drift_rows import DriftRows, score_texts
from red_ray.model import RedModel
from red_ray.snapshot import Snapshot
from red_ray.training import TrainingJob

PER_LABEL = 30
N_HELD_OUT = 5
SIZES = {"banking77": (200, 500, 1000, 1500), "clinc150": (200, 500, 1000, 1500, 2500)}
FILES = {"banking77": ("train", "test"), "clinc150": ("train", "val", "test")}
ARRIVING = (0.05, 0.1)
N_DRAWS = 20
"""Of each shift and size; of a new label, four draws of each of the five."""

N_LEVEL = 100
"""Unshifted draws of one size in which even a trifle counts, to see that the level is kept."""

SIZE_LEVEL = 1000
SETTINGS = DriftSettings()
TRIFLES = DriftSettings(min_ratio=1.0, min_change=0.0)
SOURCES = (
    *ALGORITHM,
    "calibration.py",
    "crossfit_file.py",
    "evaluation/drift.py",
    "evaluation/drift_advice.py",
    "evaluation/drift_held.py",
    "evaluation/drift_reference.py",
    "evaluation/drift_report.py",
    "evaluation/drift_rows.py",
)
LOOPED = "looped"
JUDGE = {"spec": "simulated:0.9", "budget_calls": 500}
LOOPED_PER_LABEL = 10
N_RUNS = 2
LOOPED_SIZES = (500, 1000, 1500)


@dataclass(frozen=True)
class Stage:
    """A model, and what there is to shift.

    Attributes:
        known: of the labels that the model has; `truth` are their labels.
        new: of the labels held out, by name.
        strange: out-of-scope texts, or none.
        own: what a looped run is held against; None where each draw has a reference of its own.
        facts: of a looped run.
    """

    model: RedModel
    encoder: CachedEncoder
    known: DriftRows
    truth: np.ndarray
    new: dict[str, DriftRows]
    strange: DriftRows | None
    own: Reference | None = None
    facts: Result = field(default_factory=dict)


def run(cell: Cell) -> Result:
    """One model; every shift at every size."""
    use_one_blas_thread()
    if cell.get("run") == LOOPED:
        return run_looped(cell)
    stage = staged(cell["data"], cell["seed"])
    rng = np.random.default_rng([cell["seed"], 77])
    result: Result = {
        "n_labels": len(stage.model.labels),
        "n_experts": len(stage.model.subsets),
        "n_population": len(stage.known),
        "same_by_command": same_by_command(stage, rng),
        "level": level_kept(stage, rng),
    }
    for n in SIZES[cell["data"]]:
        result[f"none-{n}"] = unshifted(stage, n, rng)
        result[f"triple-{n}"] = tripled(stage, n, rng)
        for share in ARRIVING:
            result[f"new-{share:g}-{n}"] = arriving(stage, n, share, rng)
            if stage.strange is not None:
                result[f"strange-{share:g}-{n}"] = strange(stage, n, share, rng)
    return result


def run_looped(cell: Cell) -> Result:
    """Models of a loop with a simulated judge, each held against its own pool."""
    found: list[Result] = []
    for number in range(N_RUNS):
        stage = staged_looped(cell["data"], cell["seed"], number)
        rng = np.random.default_rng([cell["seed"], 78, number])
        one = stage.facts | {
            "same_by_command": same_by_command(stage, rng),
            "level": level_kept(stage, rng, N_LEVEL // N_RUNS),
        }
        for n in LOOPED_SIZES:
            one[f"none-{n}"] = unshifted(stage, n, rng, N_DRAWS // N_RUNS)
            one[f"triple-{n}"] = tripled(stage, n, rng, N_DRAWS // N_RUNS)
            one[f"new-0.1-{n}"] = arriving(stage, n, 0.1, rng, N_DRAWS // N_RUNS)
        found.append(one)
    return {"runs": found}


def staged_looped(data: str, seed: int, number: int) -> Stage:
    """A looped run on half of the population, and the other half to draw recent texts from."""
    settings: dict[str, object] = {"samples_per_class": LOOPED_PER_LABEL, "judge": JUDGE}
    config = load_config(None, {"seed": seed} | settings)
    everything = joined([read(config, data, name) for name in FILES[data]], set())
    names = sorted(set(everything.labels))
    rng = np.random.default_rng([seed, 6, number])
    held_out = draw_held_out(names, rng)
    order = rng.permutation(at_labels(everything, set(names) - held_out))
    half = len(order) // 2
    file, others = everything.take(order[:half]), everything.take(order[half:])
    inputs = draw_samples(config, Inputs(file, (), HiddenLabels({})))
    encoder = encoder_of(config)
    trained, stats = train(job_of(config, inputs, pool=True), encoder, inputs)
    goal = Goal(escalate_at_most=0.2)
    model = with_goal(trained.model, goal, 0.9, None, lambda: encoder)
    with tempfile.TemporaryDirectory() as folder:
        save_crossfit(Path(folder), model, trained.crossfit)
        crossfit = load_crossfit(Path(folder), model)
    own = own_reference(model, Snapshot(inputs, None), encoder, crossfit=crossfit)
    score = partial(score_texts, model, encoder=encoder)
    return Stage(
        model,
        encoder,
        score(others.texts),
        truth_of(model, others),
        {
            name: score(everything.take(at_labels(everything, {name})).texts)
            for name in sorted(held_out)
        },
        None,
        own,
        {
            "n_labels": len(model.labels),
            "n_reference": int(own.sure.sum()),
            "n_others": len(others),
            "n_blind": own.n_blind,
            "n_by_judge": len(model.example_labels) - model.n_seed,
            "n_questions": stats.requests,
            "has_shares": own.has_shares,
        },
    )


def staged(data: str, seed: int) -> Stage:
    """Train without the labels that are held out, and score all other texts."""
    config = load_config(None, {"seed": seed})
    rows = {name: read(config, data, name) for name in FILES[data]}
    names = sorted(set(rows["train"].labels))
    rng = np.random.default_rng([seed, 5])
    held_out = draw_held_out(names, rng)
    train = rows["train"].take(at_labels(rows["train"], set(names) - held_out))
    drawn = sample_per_class(train.labels, PER_LABEL, rng)
    chosen = train.take(drawn)
    encoder = encoder_of(config)
    job = TrainingJob(chosen.texts, chosen.labels, (), {}, config)
    plain = train_alone(job, encoder).model
    model = with_goal(plain, Goal(escalate_at_most=0.2), 0.9, None, lambda: encoder)
    others = joined(rows.values(), {text_key(text) for text in chosen.texts})
    known = others.take(at_labels(others, set(names) - held_out))
    score = partial(score_texts, model, encoder=encoder)
    return Stage(
        model,
        encoder,
        score(known.texts),
        truth_of(model, known),
        {name: score(others.take(at_labels(others, {name})).texts) for name in sorted(held_out)},
        score(read(config, data, "oos_test").texts) if data == "clinc150" else None,
    )


def read(config: RunConfig, data: str, name: str) -> LabelledRows:
    table = read_table(
        data_folder() / data / f"{name}.csv",
        text_column=config.text_column,
        label_column=config.label_column,
    )
    return clean_labelled(table, max_chars=config.max_chars)[0]


def joined(parts: Sequence[LabelledRows], without: set[str]) -> LabelledRows:
    """All rows, each text once, but those that the model learns."""
    kept: dict[str, tuple[str, str]] = {}
    for part in parts:
        for text, label in zip(part.texts, part.labels, strict=True):
            key = text_key(text)
            if key not in without:
                kept.setdefault(key, (text, label))
    texts, labels = zip(*kept.values(), strict=True)
    return LabelledRows(texts, labels)


def draw_held_out(names: Sequence[str], rng: np.random.Generator) -> set[str]:
    """Labels that the model does not get."""
    return {names[at] for at in rng.choice(len(names), N_HELD_OUT, replace=False)}


def truth_of(model: RedModel, rows: LabelledRows) -> np.ndarray:
    """Label indices of some rows."""
    index = {label: position for position, label in enumerate(model.labels)}
    return np.array([index[label] for label in rows.labels])


def at_labels(rows: LabelledRows, labels: set[str]) -> list[int]:
    return [row for row, label in enumerate(rows.labels) if label in labels]


def split(stage: Stage, rng: np.random.Generator) -> tuple[Reference, np.ndarray]:
    """A reference of one half, and where the other is; of a looped run its own, and all texts."""
    if stage.own is not None:
        return stage.own, np.arange(len(stage.known))
    order = rng.permutation(len(stage.known))
    half = len(order) // 2
    return Reference(stage.known.take(order[:half]), "pool"), order[half:]


def report(
    stage: Stage, recent: DriftRows, reference: Reference, settings: DriftSettings = SETTINGS
) -> DriftReport:
    return compare(stage.model, recent, reference, settings)


def both(first: DriftRows, second: DriftRows) -> DriftRows:
    names = [name for name in DriftRows.__slots__ if name != "texts"]
    parts = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names}
    return DriftRows(texts=first.texts + second.texts, **parts)


def unshifted(stage: Stage, n: int, rng: np.random.Generator, n_draws: int = N_DRAWS) -> Result:
    alarms = 0
    for _ in range(n_draws):
        reference, left = split(stage, rng)
        recent = stage.known.take(rng.choice(left, n, replace=False))
        alarms += report(stage, recent, reference).is_drift
    return {"alarms": alarms, "of": n_draws}


def level_kept(stage: Stage, rng: np.random.Generator, n_draws: int = N_LEVEL) -> Result:
    """How often anything is significant, however small."""
    alarms, n_tests = 0, []
    for _ in range(n_draws):
        reference, left = split(stage, rng)
        recent = stage.known.take(rng.choice(left, SIZE_LEVEL, replace=False))
        found = report(stage, recent, reference, TRIFLES)
        alarms += found.is_drift
        n_tests.append(len(found.comparisons))
    return {"alarms": alarms, "of": n_draws, "n_tests": float(np.mean(n_tests))}


def tripled(stage: Stage, n: int, rng: np.random.Generator, n_draws: int = N_DRAWS) -> Result:
    """A label's texts are three times as many, all others in their proportions."""
    model, found = stage.model, []
    for _ in range(n_draws):
        reference, left = split(stage, rng)
        label = int(rng.integers(len(model.labels)))
        mine, others = (left[stage.truth[left] == label], left[stage.truth[left] != label])
        n_mine = min(len(mine), round(3 * n * len(mine) / len(left)))
        recent = stage.known.take(
            np.concatenate(
                [
                    rng.choice(mine, n_mine, replace=False),
                    rng.choice(others, n - n_mine, replace=False),
                ]
            )
        )
        one = report(stage, recent, reference)
        named = {f.name for f in one.findings if f.kind == LABEL and f.grew}
        right = {model.expert_of[label]}
        found.append(drawn_figures(one, right) | {"label": model.labels[label] in named})
    return summed(found)


def arriving(
    stage: Stage, n: int, share: float, rng: np.random.Generator, n_draws: int = N_DRAWS
) -> Result:
    """Texts of a label that the model does not know."""
    found = []
    for rows in stage.new.values():
        right = nearest_experts(stage.model, rows)
        n_new = min(len(rows), round(share * n))
        for _ in range(n_draws // N_HELD_OUT):
            reference, left = split(stage, rng)
            kept = stage.known.take(rng.choice(left, n - n_new, replace=False))
            new = rows.take(rng.choice(len(rows), n_new, replace=False))
            one = report(stage, both(kept, new), reference)
            texts = set(new.texts)
            topics = [t for t in one.topics if sum(x in texts for x in t.texts) > len(t.texts) / 2]
            found.append(drawn_figures(one, right) | {"topic": bool(topics)})
    return summed(found) | {"labels": sorted(stage.new)}


def nearest_experts(model: RedModel, rows: DriftRows) -> set[str]:
    """Those that hold the three labels nearest to a new one."""
    middles = np.stack(
        [
            model.example_vectors[model.example_labels == label].mean(axis=0)
            for label in range(len(model.labels))
        ]
    )
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    nearest = np.argsort(-(middles @ rows.vectors.mean(axis=0)))[:3]
    return {model.expert_of[int(label)] for label in nearest}


def strange(stage: Stage, n: int, share: float, rng: np.random.Generator) -> Result:
    """Out-of-scope texts of all kinds."""
    assert stage.strange is not None
    found, n_new = [], round(share * n)
    for _ in range(N_DRAWS):
        reference, left = split(stage, rng)
        kept = stage.known.take(rng.choice(left, n - n_new, replace=False))
        new = stage.strange.take(rng.choice(len(stage.strange), n_new, replace=False))
        one = report(stage, both(kept, new), reference)
        kinds = {f.kind for f in one.findings}
        novel = bool(kinds & {"novelty", "none", TOPIC})
        found.append({"drift": one.is_drift, "novel": novel})
    return summed(found)


def drawn_figures(one: DriftReport, right: set[str]) -> Result:
    """Whether there is drift, whether a right expert is named, and how many others are."""
    named = {expert.expert for expert in one.experts}
    return {
        "drift": one.is_drift,
        "expert": bool(named & right),
        "wrong": len(named - right),
        "named": len(named),
    }


def summed(found: Sequence[Result]) -> Result:
    return {"of": len(found)} | {key: int(sum(one[key] for one in found)) for key in found[0]}


def same_by_command(stage: Stage, rng: np.random.Generator) -> bool:
    """Whether `find_drift`, given texts, finds what the scored rows say."""
    reference, left = split(stage, rng)
    new = next(iter(stage.new.values()))
    kept = stage.known.take(rng.choice(left, 900, replace=False))
    recent = both(kept, new.take(np.arange(100)))
    found, _ = find_drift(stage.model, recent.texts, reference, encoder=stage.encoder)
    mine = report(stage, recent, reference)
    same = replace(found, notes=()) == replace(mine, notes=())
    return same or [f.to_dict() for f in found.findings] == [f.to_dict() for f in mine.findings]


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Draws in which something was found, over the seeds."""
    lines = [
        f"Draws in which something was found; {PER_LABEL} rows per label. The level is "
        f"{SETTINGS.level:g} for a whole report, min_ratio {SETTINGS.min_ratio:g}, min_change "
        f"{SETTINGS.min_change:g}. *Right expert*: one that holds the label, or one of the three "
        "labels nearest to a new one; *others*: experts named beside those, mean of a draw.\n"
    ]
    for data, sizes in SIZES.items():
        mine = [(cell, result) for cell, result in done if cell["data"] == data]
        results = [result for cell, result in mine if "run" not in cell]
        if results:
            lines += [*part(data, sizes, results), ""]
        looped = [one for cell, result in mine if "run" in cell for one in result["runs"]]
        if looped:
            lines += [*looped_part(data, looped), ""]
    return "\n".join(lines)


def part(data: str, sizes: Sequence[int], results: Sequence[Result]) -> list[str]:
    first, kept = results[0], total(results, "level")
    tests = np.mean([result["level"]["n_tests"] for result in results])
    population = int(np.mean([result["n_population"] for result in results]))
    lines = [
        f"**{data}**, {len(results)} {'model' if len(results) == 1 else 'models'}: "
        f"{first['n_labels']} labels, {N_HELD_OUT} held out; {first['n_experts']} "
        f"experts; {population // 2:,} reference texts, mean; {tests:.0f} comparisons a report, "
        "mean\n",
        f"- any comparison significant in an unshifted draw of {SIZE_LEVEL:,}, however small the "
        f"change: {kept['alarms']} of {kept['of']}",
        f"- `find_drift` on the texts says the same: "
        f"{'yes' if all(result['same_by_command'] for result in results) else 'NO'}\n",
        "| recent texts | " + " | ".join(f"{n:,}" for n in sizes) + " |",
        "|" + "---|" * (len(sizes) + 1),
    ]
    rows: list[tuple[str, str, str]] = [("no shift: false alarms", "none-{}", "alarms")]
    rows += [
        ("A, a label's share tripled: label named", "triple-{}", "label"),
        ("… its expert named", "triple-{}", "expert"),
        ("… others named, mean", "triple-{}", "wrong"),
    ]
    for share in ARRIVING:
        name = f"new-{share:g}-{{}}"
        rows += [
            (f"B, a new label at {share:.0%} of the texts: drift", name, "drift"),
            ("… its texts shown as a topic", name, "topic"),
            ("… a right expert named", name, "expert"),
            ("… others named, mean", name, "wrong"),
        ]
    if f"strange-{ARRIVING[0]:g}-{sizes[0]}" in first:
        for share in ARRIVING:
            name = f"strange-{share:g}-{{}}"
            rows.append((f"out-of-scope texts at {share:.0%}: named novel", name, "novel"))
    for words, name, key in rows:
        cells = [figure(results, name.format(n), key) for n in sizes]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return lines


def looped_part(data: str, runs: Sequence[Result]) -> list[str]:
    mean = {name: int(np.mean([run[name] for run in runs])) for name in runs[0] if name[:2] == "n_"}
    kept = total(runs, "level")
    tests = np.mean([run["level"]["n_tests"] for run in runs])
    lines = [
        f"**{data}, looped runs held against their own pool**, {len(runs)} models, "
        f"{LOOPED_PER_LABEL} rows per label: {mean['n_labels']} labels, {N_HELD_OUT} held out; "
        f"{mean['n_questions']:,} questions to a simulated judge, right 90 % of the time, "
        f"{mean['n_by_judge']:,} rows by it; {mean['n_reference']:,} reference texts, of "
        f"{mean['n_blind']:,} of which nothing is known; {tests:.0f} comparisons a report, mean\n",
        f"- any comparison significant in an unshifted draw of {SIZE_LEVEL:,}, however small the "
        f"change: {kept['alarms']} of {kept['of']}",
        f"- label shares are compared: {'yes' if all(r['has_shares'] for r in runs) else 'NO'}",
        f"- `find_drift` on the texts says the same: "
        f"{'yes' if all(run['same_by_command'] for run in runs) else 'NO'}\n",
        "| recent texts | " + " | ".join(f"{n:,}" for n in LOOPED_SIZES) + " |",
        "|" + "---|" * (len(LOOPED_SIZES) + 1),
    ]
    for words, name, key in (
        ("no shift: false alarms", "none-{}", "alarms"),
        ("A, a label's share tripled: label named", "triple-{}", "label"),
        ("… its expert named", "triple-{}", "expert"),
        ("B, a new label at 10% of the texts: drift", "new-0.1-{}", "drift"),
        ("… a right expert named", "new-0.1-{}", "expert"),
    ):
        cells = [figure(runs, name.format(n), key) for n in LOOPED_SIZES]
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return lines


def figure(results: Sequence[Result], name: str, key: str) -> str:
    found = total(results, name)
    if key == "wrong":
        return f"{found[key] / found['of']:.2f}"
    return f"{found[key]} of {found['of']}"


def total(results: Sequence[Result], name: str) -> Result:
    keys = [key for key, value in results[0][name].items() if isinstance(value, int | float)]
    return {key: sum(result[name][key] for result in results) for key in keys}


CELLS: list[Cell] = [{"data": data, "seed": seed} for seed in SEEDS for data in SIZES]
CELLS += [{"data": "banking77", "seed": seed, "run": LOOPED} for seed in SEEDS]

if __name__ == "__main__":
    main(Benchmark("drift", CELLS, run, table, SOURCES))
