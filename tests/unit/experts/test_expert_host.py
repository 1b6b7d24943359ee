"""The host: who learns from which rows, and that no held-out row leaks into its own fold."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest

from red_ray.config import ExpertKind
from red_ray.core.partition import unit_rows
from red_ray.errors import ForgottenError
from red_ray.experts import ExpertHost, ExpertSpec, FitRows, WrittenRows, make_expert
from red_ray.experts.host import training_rows, written_rows

N_LABELS, PER_LABEL, DIM = 4, 8, 10
OWN = (1, 3)  # the expert's labels; 0 and 2 are of another subset
EMPTY = np.zeros(0, dtype=np.int64)


def fit_rows(labels=None, *, noise=None, refused=(), folds=None):
    """Rows 10, 11, … of the shared vectors, so that a row is never its own position."""
    labels = np.repeat(np.arange(N_LABELS), PER_LABEL) if labels is None else np.array(labels)
    others = np.flatnonzero(~np.isin(labels, OWN))
    return FitRows(
        rows=10 + np.arange(len(labels)),
        labels=labels,
        noise=others if noise is None else np.array(noise, dtype=np.int64),
        refused=np.array(refused, dtype=np.int64),
        folds=np.full(len(labels), -1) if folds is None else np.array(folds),
    )


def learned(data, fold=None, labels=OWN):
    rows, classes = training_rows(labels, data, fold=fold)
    return list(zip(rows.tolist(), classes.tolist(), strict=True))


def test_own_rows_get_their_column_and_noise_the_last():
    data = fit_rows([3, 1, 0, 2], noise=[2, 3])
    assert learned(data) == [(10, 1), (11, 0), (12, 2), (13, 2)]


def test_rows_of_others_that_are_no_noise_are_left_out():
    assert learned(fit_rows([3, 1, 0, 2], noise=[3])) == [(10, 1), (11, 0), (13, 2)]


def test_without_noise_only_own_rows_are_learned():
    """The gate: all labels are its own."""
    data = fit_rows([3, 1, 0, 2], noise=[])
    assert learned(data, labels=range(4)) == [(10, 3), (11, 1), (12, 0), (13, 2)]


def test_refused_texts_are_noise():
    """Defect 10: a text that a judge refused for a label of the expert is a hard negative."""
    assert learned(fit_rows([3, 1], noise=[], refused=[40, 41])) == [
        (10, 1),
        (11, 0),
        (40, 2),
        (41, 2),
    ]


def test_a_fold_is_left_out_of_labels_and_noise_alike():
    data = fit_rows([3, 1, 0, 2], noise=[2, 3], folds=[0, 1, 0, 1])
    assert learned(data, fold=0) == [(11, 0), (13, 2)]
    assert learned(data, fold=1) == [(10, 1), (12, 2)]


def test_a_row_that_is_never_held_out_and_a_refused_one_stay_in_every_fold():
    data = fit_rows([3, 1, 1], noise=[], refused=[40], folds=[-1, 0, 1])
    assert learned(data, fold=0) == [(10, 1), (12, 0), (40, 2)]
    assert learned(data, fold=1) == [(10, 1), (11, 0), (40, 2)]


def written(rows, labels, folds):
    arrays = (np.array(one, dtype=np.int64) for one in (rows, labels, folds))
    return WrittenRows(*arrays, weight=0.25)


def test_what_was_written_is_learned_for_own_labels_and_not_where_its_text_is_held_out():
    of_all = written([60, 61, 62, 63], [3, 1, 0, 1], [0, 1, 0, -1])
    data = dataclasses.replace(fit_rows([3, 1, 0], noise=[2], folds=[0, 1, 0]), written=of_all)

    def taught(fold=None):
        return [one.tolist() for one in written_rows(OWN, data, fold=fold)]

    assert taught() == [[60, 61, 63], [1, 0, 0]]
    assert taught(0) == [[61, 63], [0, 0]]
    assert taught(1) == [[60, 63], [1, 0]]
    assert learned(data) == learned(dataclasses.replace(data, written=None))


def test_what_was_written_counts_for_less_and_changes_nothing_of_other_labels(host, vectors):
    data = fit_rows(folds=FOLDS)
    others = dataclasses.replace(data, written=written([3, 4], [0, 2], [0, 0]))
    own = dataclasses.replace(data, written=written([3, 4], [1, 3], [0, 0]))
    plain, strange, taught = (host.crossfit(0, one) for one in (data, others, own))
    assert strange.tobytes() == plain.tobytes()
    assert taught[FOLDS == 0].tobytes() == plain[FOLDS == 0].tobytes()
    assert (taught[FOLDS == 1] != plain[FOLDS == 1]).any()
    rows, classes = training_rows(OWN, data, fold=1)
    expert = make_expert(host._specs[0])
    weights = np.repeat([1.0, 0.25], [len(rows), 2])
    seen = np.concatenate([vectors[rows], vectors[[3, 4]]])
    expert.fit(seen, np.concatenate([classes, [0, 1]]), weights)
    expected = expert.score(vectors[data.rows[FOLDS == 1]])
    np.testing.assert_array_equal(taught[FOLDS == 1], expected)


def test_no_row_is_learned_twice():
    """Defect 14: the full set, each row once."""
    rows = [row for row, _ in learned(fit_rows(refused=[50]))]
    assert len(rows) == len(set(rows)) == N_LABELS * PER_LABEL + 1


@pytest.fixture(scope="module")
def vectors():
    labels = np.repeat(np.arange(N_LABELS), PER_LABEL)
    noise = np.random.default_rng(0).standard_normal((10 + len(labels), DIM))
    centres = np.zeros_like(noise)
    centres[10:] = np.eye(N_LABELS, DIM)[labels]
    return unit_rows((centres + 0.3 * noise).astype(np.float32))


@pytest.fixture(params=typing.get_args(ExpertKind))
def host(request, vectors):
    specs = [
        ExpertSpec("expert-00", OWN, request.param, 1),
        ExpertSpec("x", (0, 2), request.param, 2),
    ]
    host = ExpertHost(specs)
    host.load(vectors)
    if request.param == "setfit":
        for position in range(len(specs)):
            host.load_tuned(position, vectors)
    return host


FOLDS = np.tile([0, 1], N_LABELS * PER_LABEL // 2)


def test_a_held_out_row_never_enters_its_own_folds_fit(host):
    """Flipped labels in fold 0 change the scores of the other fold and none of its own."""
    flipped = np.repeat(np.arange(N_LABELS), PER_LABEL)
    flipped[FOLDS == 0] = 3 - flipped[FOLDS == 0] + 1  # 0 -> 4 is no label of anyone
    flipped[flipped == 4] = 2
    noise = list(range(N_LABELS * PER_LABEL))  # whatever is not its own is noise in both
    before = host.crossfit(0, fit_rows(noise=noise, folds=FOLDS))
    after = host.crossfit(0, fit_rows(flipped, noise=noise, folds=FOLDS))
    assert before[FOLDS == 0].tobytes() == after[FOLDS == 0].tobytes()
    assert (before[FOLDS == 1] != after[FOLDS == 1]).any(axis=1).all()


def test_crossfitted_scores_are_those_of_an_expert_that_never_saw_the_fold(host, vectors):
    data = fit_rows(folds=FOLDS, refused=[2])
    crossed = host.crossfit(0, data)
    kept = FOLDS != 0
    rest = FitRows(
        rows=data.rows[kept],
        labels=data.labels[kept],
        noise=np.flatnonzero(~np.isin(data.labels[kept], OWN)),
        refused=data.refused,
        folds=np.full(kept.sum(), -1),
    )
    host.fit(0, rest)
    assert host.score(0, data.rows[~kept]).tobytes() == crossed[~kept].tobytes()


def test_a_setfit_expert_sees_each_fold_by_the_encoder_that_never_saw_it(vectors):
    host = ExpertHost([ExpertSpec("expert-00", OWN, "setfit", 1)])
    host.load_tuned(0, np.zeros_like(vectors))  # would tell nothing
    known = np.arange(2, len(vectors))
    rng = np.random.default_rng(1)
    held = [unit_rows(vectors + 0.1 * rng.standard_normal(vectors.shape)) for _ in range(2)]
    data = dataclasses.replace(fit_rows(folds=FOLDS, refused=[2]), known=known)
    crossed = host.crossfit(0, data, *(one[known].astype(np.float32) for one in held))
    for fold, seen in enumerate(held):
        host.load_tuned(0, seen.astype(np.float32))
        rows, classes = training_rows(OWN, data, fold=fold)
        expert = make_expert(ExpertSpec("alone", OWN, "setfit", 1))
        expert.fit(seen[rows].astype(np.float32), classes)
        expected = expert.score(seen[data.rows[fold == FOLDS]].astype(np.float32))
        np.testing.assert_array_equal(crossed[fold == FOLDS], expected)


def test_a_setfit_expert_is_not_used_before_its_vectors_are_there(vectors):
    host = ExpertHost([ExpertSpec("expert-00", OWN, "setfit", 1)])
    host.load(vectors)
    with pytest.raises(ForgottenError, match="load the shared vectors"):
        host.fit(0, fit_rows())


def test_rows_that_are_never_held_out_are_zero(host):
    folds = FOLDS.copy()
    folds[:3] = -1
    crossed = host.crossfit(0, fit_rows(folds=folds))
    assert not crossed[:3].any()
    assert crossed[3:].any(axis=1).all()


def test_a_fold_may_be_without_rows(host):
    """Few rows and five folds: some fold holds nothing."""
    crossed = host.crossfit(0, fit_rows(folds=3 * FOLDS))
    assert crossed.tobytes() == host.crossfit(0, fit_rows(folds=FOLDS)).tobytes()


def test_crossfitting_leaves_the_expert_as_it_was(host):
    data = fit_rows(folds=FOLDS)
    host.fit(0, data)
    before = host.score(0, data.rows)
    host.crossfit(0, data)
    assert host.score(0, data.rows).tobytes() == before.tobytes()


def test_experts_of_one_host_are_apart(host):
    data = fit_rows()
    host.fit(0, data)
    before = host.score(0, data.rows)
    host.fit(1, fit_rows(noise=np.flatnonzero(np.isin(data.labels, OWN))))
    assert host.score(0, data.rows).tobytes() == before.tobytes()


def test_the_exported_expert_is_the_fitted_one(host, vectors):
    data = fit_rows()
    host.fit(0, data)
    exported = host.export(0).score(vectors[data.rows])
    assert exported.tobytes() == host.score(0, data.rows).tobytes()


def test_no_expert_is_used_before_the_vectors_are_there():
    host = ExpertHost([ExpertSpec("expert-00", OWN, "logistic_regression", 1)])
    with pytest.raises(ForgottenError, match="load the shared vectors"):
        host.fit(0, fit_rows())
