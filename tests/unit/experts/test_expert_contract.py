"""What every kind of expert keeps to; a new kind is covered as soon as its name stands."""

from __future__ import annotations

import typing

import numpy as np
import pytest

from red_ray.config import ExpertKind
from red_ray.core.evidence import LOG_FLOOR
from red_ray.core.partition import unit_rows
from red_ray.experts import ExpertSpec, make_expert

KINDS = typing.get_args(ExpertKind)
N_LABELS, DIM, PER_CLASS = 4, 12, 15
NOISE = N_LABELS


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


def rows(classes=range(N_LABELS + 1), per_class=PER_CLASS, seed=0):
    """Rows around one axis for each column, noise as the last."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.array(list(classes), dtype=np.int64), per_class)
    vectors = np.eye(N_LABELS + 1, DIM)[y] + 0.25 * rng.standard_normal((len(y), DIM))
    return unit_rows(vectors.astype(np.float32)), y


def make(kind, seed=0):
    return make_expert(ExpertSpec("expert-00: …", tuple(range(N_LABELS)), kind, seed))


def fitted(kind, vectors, classes, seed=0):
    expert = make(kind, seed)
    expert.fit(vectors, classes)
    return expert


@pytest.fixture(scope="module")
def expert(kind):
    return fitted(kind, *rows())


@pytest.fixture(scope="module")
def fresh():
    return rows(seed=1)


def test_it_says_which_kind_it_is(kind, expert):
    assert expert.kind == kind


def test_scores_are_log_probabilities_of_all_labels_and_noise(expert, fresh):
    scores = expert.score(fresh[0])
    assert scores.shape == (len(fresh[0]), N_LABELS + 1)
    assert scores.dtype == np.float32
    assert (scores <= 1e-6).all()
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-4)


def test_it_tells_its_labels_apart_on_new_rows(expert, fresh):
    assert (expert.score(fresh[0]).argmax(axis=1) == fresh[1]).mean() > 0.8


def test_noise_is_the_last_column(expert, fresh):
    """Defect 4: noise rows are learned, so that a row of another subset is told as noise."""
    noise = np.exp(expert.score(fresh[0]))[:, NOISE]
    assert noise[fresh[1] == NOISE].mean() > 2 * noise[fresh[1] != NOISE].mean()


@pytest.mark.parametrize("present", [(0, 2, NOISE), (1, NOISE), (0, 1), (3,)])
def test_a_column_without_rows_gets_the_floor(kind, present, fresh):
    scores = fitted(kind, *rows(present)).score(fresh[0])
    missing = [column for column in range(N_LABELS + 1) if column not in present]
    assert (scores[:, missing] == LOG_FLOOR).all()
    np.testing.assert_allclose(np.exp(scores[:, present]).sum(axis=1), 1, atol=1e-4)
    assert (scores[:, present] > LOG_FLOOR).all()


@pytest.mark.parametrize("present", [(0, 2, NOISE), (1, NOISE), (0, 1)])
def test_the_columns_that_have_rows_are_not_mixed_up(kind, present, fresh):
    scores = fitted(kind, *rows(present)).score(fresh[0])
    known = np.isin(fresh[1], present)
    assert (scores[known].argmax(axis=1) == fresh[1][known]).mean() > 0.8


def test_a_refit_knows_nothing_of_the_fit_before(kind, fresh):
    """Defect 14: a refit uses the full current set, never appended to the one before."""
    again = fitted(kind, *rows((0, 1), seed=5))
    again.fit(*rows())
    expected = fitted(kind, *rows()).score(fresh[0])
    assert again.score(fresh[0]).tobytes() == expected.tobytes()


def test_a_row_of_little_weight_has_little_say(kind, fresh):
    """Rows of one label that are said to be another's."""
    vectors, classes = rows()
    wrong = np.flatnonzero(classes == 0)
    seen, told = np.concatenate([vectors, vectors[wrong]]), np.append(classes, [1] * len(wrong))

    def right(weight):
        expert = make(kind)
        expert.fit(seen, told, np.repeat([1.0, weight], [len(vectors), len(wrong)]))
        own = fresh[1] == 0
        return np.exp(expert.score(fresh[0][own]))[:, :2].mean(axis=0)

    light, heavy = right(0.05), right(20.0)
    assert light[0] > light[1]
    assert heavy[0] < heavy[1]


def test_the_same_rows_and_seed_give_the_same_bits(kind, expert, fresh):
    """Defect 22."""
    again = fitted(kind, *rows())
    assert again.score(fresh[0]).tobytes() == expert.score(fresh[0]).tobytes()


def test_a_rows_score_does_not_depend_on_its_company(expert, fresh):
    together = expert.score(fresh[0])
    alone = np.concatenate([expert.score(fresh[0][i : i + 1]) for i in range(0, 75, 7)])
    np.testing.assert_allclose(alone, together[::7], atol=1e-4)


def test_no_row_gives_no_score(expert):
    assert expert.score(np.zeros((0, DIM), np.float32)).shape == (0, N_LABELS + 1)


def test_fitting_and_scoring_change_neither_rows_nor_classes(kind):
    vectors, classes = rows()
    before = vectors.tobytes(), classes.tobytes()
    fitted(kind, vectors, classes).score(vectors)
    assert (vectors.tobytes(), classes.tobytes()) == before


def test_scoring_before_a_fit_is_refused(kind, fresh):
    with pytest.raises(RuntimeError, match="after it was fitted"):
        make(kind).score(fresh[0])


def test_a_forests_seed_is_its_own():
    vectors, classes = rows()
    first, second = (
        fitted("random_forest", vectors, classes, seed).score(vectors) for seed in (1, 2)
    )
    assert first.tobytes() != second.tobytes()


def test_a_forest_never_calls_a_label_without_votes_impossible():
    vectors, classes = rows()
    scores = fitted("random_forest", vectors, classes).score(vectors)
    assert scores.min() > np.log(1e-4)
