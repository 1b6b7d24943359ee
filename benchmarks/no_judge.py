"""Without a judge: accuracy against flat, the ablation of the evidence, and none of the above.

Banking77 and CLINC150, 10 and 30 per label drawn from train, official test set, three seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from benchmarks.cells import Benchmark, Cell, Result, main, mean_interval
from benchmarks.data import SEEDS, encoder_of, job_of, load, train_alone, true_labels
from red_ray.config import RunConfig
from red_ray.core.blas import use_one_blas_thread
from red_ray.core.evidence import Column
from red_ray.core.lexical import LexicalSpace
from red_ray.core.metrics import auroc, brier_score, expected_calibration_error, fpr_at_recall
from red_ray.core.router import fit_router
from red_ray.data.inputs import TestRows
from red_ray.encoding import CachedEncoder
from red_ray.model import RedModel
from red_ray.training import LocalFleet
from red_ray.training.router_host import RouterHost

SETS = (("banking77", 10), ("banking77", 30), ("clinc150", 10), ("clinc150", 30))
SIMILARITY = (Column.CENTROID, Column.NEAREST, Column.NEAREST_3)
LEXICAL = (Column.LEXICAL_CENTROID, Column.LEXICAL_NEAREST)
EXPERT = (Column.EXPERT, Column.NOISE)
ABLATIONS = {
    "evidence 4-8": (*SIMILARITY, *LEXICAL),
    "1 and 4-8 (gate, no expert)": (Column.GATE, *SIMILARITY, *LEXICAL),
    "2-8 (delegation, no gate)": (*EXPERT, *SIMILARITY, *LEXICAL),
    "1-6 (no lexical)": (Column.GATE, *EXPERT, *SIMILARITY),
    "1-8": tuple(Column),
}
STRATEGIES = ("similar", "dissimilar", "random")


class RecordingRouter(RouterHost):
    """Keeps the cross-fitted evidence, so that every ablation is fitted on the same rows."""

    def crossfitted_evidence(self, rows, labels, folds, scores):  # type: ignore[no-untyped-def]
        evidence = super().crossfitted_evidence(rows, labels, folds, scores)
        RecordingFleet.recorded = (evidence, labels, folds >= 0)
        return evidence


class RecordingFleet(LocalFleet):
    router_kind = RecordingRouter
    recorded: tuple[np.ndarray, np.ndarray, np.ndarray]


def run(cell: Cell) -> Result:
    """One data set, rows per label and seed: every strategy and every ablation."""
    use_one_blas_thread()
    result: Result = {}
    likelihoods = {}
    for strategy in STRATEGIES:
        overrides = {"partition": {"strategy": strategy}}
        config, inputs, test = load(cell["data"], cell["per_label"], cell["seed"], overrides)
        encoder = encoder_of(config)
        trained = train_alone(job_of(config, inputs), encoder, RecordingFleet)
        truth = true_labels(trained.model.labels, test)
        vectors = encoder.encode(test.rows.texts)
        evidence = np.concatenate(list(trained.model.evidence(test.rows.texts, vectors)))
        for name, columns in ABLATIONS.items():
            if strategy == "similar" or name.startswith(("2-8", "1-8")):
                proba = refitted(config, columns, evidence)
                result[label_of(name, strategy)] = float((proba.argmax(axis=1) == truth).mean())
        likelihoods[strategy] = trained.estimate.log_likelihood
        if strategy == "similar":
            result |= main_figures(trained.model, encoder, test, vectors, evidence, truth)
    # The same rule as the `auto` strategy of a run: the better cross-fitted likelihood.
    best = max(("similar", "dissimilar"), key=lambda strategy: likelihoods[strategy])
    return result | {"1-8, auto": result[label_of("1-8", best)]}


def label_of(name: str, strategy: str) -> str:
    return name if strategy == "similar" else f"{name.split(' ')[0]}, {strategy}"


def refitted(config: RunConfig, columns: Sequence[int], evidence: np.ndarray) -> np.ndarray:
    """Label probabilities of a router that reads these columns alone."""
    recorded, labels, held = RecordingFleet.recorded
    router = fit_router(
        recorded[held],
        labels[held],
        trusted=np.ones(int(held.sum()), dtype=bool),
        columns=np.array(sorted(columns)),
        none_prior=config.router.none_prior,
    )
    return np.exp(router.label_log_proba(evidence))


def main_figures(
    model: RedModel,
    encoder: CachedEncoder,
    test: TestRows,
    vectors: np.ndarray,
    evidence: np.ndarray,
    truth: np.ndarray,
) -> Result:
    """The shipped model's own figures and the flat baselines."""
    proba = np.exp(model.router.label_log_proba(evidence))
    correct = proba.argmax(axis=1) == truth
    flat = evidence[:, :, Column.GATE].argmax(axis=1)
    result: Result = {
        "accuracy": float(correct.mean()),
        "flat": float((flat == truth).mean()),
        "flat on embeddings and n-grams": flat_with_ngrams(model, test, vectors, truth),
        "experts only": float((evidence[:, :, Column.EXPERT].argmax(axis=1) == truth).mean()),
        "ece": expected_calibration_error(proba.max(axis=1), correct),
        "brier": brier_score(proba, truth),
        "n_test": len(truth),
        "dropped": test.n_dropped,
    }
    if test.out_of_scope:
        strange = model.assess(test.out_of_scope, encoder.encode(test.out_of_scope)).none
        known = model.router.none_proba(evidence)
        result |= {
            "none auroc": auroc(strange, known),
            "none fpr at 95": fpr_at_recall(strange, known),
        }
    return result


def flat_with_ngrams(
    model: RedModel, test: TestRows, vectors: np.ndarray, truth: np.ndarray
) -> float:
    """One logistic regression, C=10, over the embedding and the n-grams seen in training."""
    space = model.space or LexicalSpace.fit(model.example_texts)
    ngrams = space.transform(model.example_texts)
    used = np.unique(ngrams.indices)
    join: Callable[[np.ndarray, sparse.csr_matrix], sparse.csr_matrix] = lambda dense, lexical: (  # noqa: E731
        sparse.hstack([sparse.csr_matrix(dense), lexical[:, used]], format="csr")
    )
    fitted = LogisticRegression(C=10, max_iter=200, tol=1e-3)
    fitted.fit(join(model.example_vectors, ngrams), model.example_labels)
    predicted = fitted.predict(join(vectors, space.transform(test.rows.texts)))
    return float((predicted == truth).mean())


ROWS = (
    "flat",
    "flat on embeddings and n-grams",
    "experts only",
    "evidence 4-8",
    "1 and 4-8 (gate, no expert)",
    "2-8 (delegation, no gate)",
    "2-8, dissimilar",
    "2-8, random",
    "1-6 (no lexical)",
    "1-8",
    "1-8, dissimilar",
    "1-8, random",
    "1-8, auto",
)


QUALITY = (
    ("calibration error (ECE), %", "ece", 100, 2),
    ("Brier score, 0 to 2", "brier", 1, 3),
    ("none of the above, AUROC", "none auroc", 1, 4),
    ("false alarms at 95 % recall of none, %", "none fpr at 95", 100, 1),
)


def table(done: Sequence[tuple[Cell, Result]]) -> str:
    """Accuracy in %, mean over seeds and 95 % interval; paired differences to flat."""
    heads = " | ".join(f"{data} {per_label}" for data, per_label in SETS)
    lines = [f"| % | {heads} | mean over flat, paired |"]
    lines.append("|" + "---|" * (len(SETS) + 2))
    for name in ROWS:
        cells = [
            mean_interval([r[name] for r in _of(done, *s)]) if _of(done, *s) else "–" for s in SETS
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {_over_flat(done, name)} |")
    lines.append(f"\n| the shipped model (1-8) | {heads} |")
    lines.append("|" + "---|" * (len(SETS) + 1))
    for name, key, scale, digits in QUALITY:
        values = [[r[key] for r in _of(done, *s) if key in r] for s in SETS]
        cells = [mean_interval(v, scale, digits) if v else "–" for v in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    worst = min(r["1-8"] - r["flat"] for _, r in done)
    lines.append(f"\nWorst single cell and seed of 1-8 over flat: {100 * worst:+.2f} points.")
    return "\n".join(lines)


def _of(done: Sequence[tuple[Cell, Result]], data: str, per_label: int) -> list[Result]:
    return [r for c, r in done if (c["data"], c["per_label"]) == (data, per_label)]


def _over_flat(done: Sequence[tuple[Cell, Result]], name: str) -> str:
    """Mean over the four sets for each seed, then mean and interval over seeds."""
    by_seed: dict[int, list[float]] = {}
    for cell, result in done:
        by_seed.setdefault(cell["seed"], []).append(result[name] - result["flat"])
    whole = [float(np.mean(v)) for v in by_seed.values() if len(v) == len(SETS)]
    return mean_interval(whole) if whole else "–"


CELLS = [
    {"data": data, "per_label": per_label, "seed": seed}
    for seed in SEEDS
    for data, per_label in SETS
]

if __name__ == "__main__":
    main(Benchmark("no_judge", CELLS, run, table))
