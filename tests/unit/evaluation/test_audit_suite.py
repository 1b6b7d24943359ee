"""The questions of an audit: like the loop's, about rows that no model had seen."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.text import text_key
from red_ray.data.prepare import LabelledRows
from red_ray.evaluation.audit import AuditRows
from red_ray.evaluation.audit.asking import crossfitted_votes
from red_ray.evaluation.audit.suite import CATEGORIES, build_suite
from tests.unit.evaluation.auditing import audit_config, big_corpus
from tests.unit.training.fakes import FakeEncoder


@pytest.fixture(scope="module")
def rows():
    corpus = big_corpus(per_label=20)
    return LabelledRows(corpus.texts, corpus.labels)


def suite_of(rows, config, descriptions=None):
    source = AuditRows.of(rows, config)
    return build_suite(source, FakeEncoder().encode(rows.texts), config, descriptions or {})


def test_the_parts_are_disjoint_and_hold_every_category_in_proportion(rows):
    suite = suite_of(rows, audit_config())
    parts = {part: [one for one in suite if one.part == part] for part in ("working", "held")}
    keys = [{text_key(one.question.text) for one in some} for some in parts.values()]
    assert not keys[0] & keys[1]
    assert len(keys[0] | keys[1]) == len(suite) == len(rows)
    assert len(parts["held"]) == pytest.approx(0.2 * len(suite), abs=1)
    for category in CATEGORIES:
        n, n_held = (
            sum(one.category == category for one in some) for some in (suite, parts["held"])
        )
        assert n_held == pytest.approx(0.2 * n, abs=1)
        assert n_held > 0


def test_the_held_part_is_asked_first(rows):
    parts = [one.part for one in suite_of(rows, audit_config())]
    assert parts == sorted(parts)  # "held" before "working"


def test_a_category_says_where_the_truth_stands(rows):
    for one in suite_of(rows, audit_config()):
        labels = [candidate.label for candidate in one.question.candidates]
        where = labels.index(one.label) if one.label in labels else None
        assert {0: "easy", None: "none"}.get(where, "hard") == one.category
        assert one.right == (None if where is None else one.label)


def test_the_stated_share_has_its_label_taken_out(rows):
    suite = suite_of(rows, audit_config(none_share=0.25))
    planted = [one for one in suite if one.planted]
    assert len(planted) == round(0.25 * len(suite))
    assert {one.category for one in planted} == {"none"}
    # Another candidate takes the place: their number tells nothing.
    assert {len(one.question.candidates) for one in suite} == {5}


def test_without_planted_questions_none_is_right_only_where_the_model_missed(rows):
    suite = suite_of(rows, audit_config(none_share=0))
    assert not any(one.planted for one in suite)


def test_examples_are_of_their_label_and_never_the_text_itself(rows):
    label_of = dict(zip(rows.texts, rows.labels, strict=True))
    for one in suite_of(rows, audit_config()):
        for candidate in one.question.candidates:
            assert len(candidate.examples) == 2
            assert one.question.text not in candidate.examples
            assert {label_of[text] for text in candidate.examples} == {candidate.label}


def test_examples_are_the_nearest_ones(rows):
    one = suite_of(rows, audit_config())[0]
    candidate = one.question.candidates[0]
    same = [text for text, label in zip(*_pair(rows), strict=True) if label == candidate.label]
    others = [text for text in same if text != one.question.text]
    asked, *vectors = FakeEncoder().encode([one.question.text, *others])
    order = np.argsort([-(vector @ asked) for vector in vectors])
    assert candidate.examples == tuple(others[place] for place in order[:2])


def _pair(rows):
    return rows.texts, rows.labels


def test_a_model_that_saw_the_row_is_never_asked_for_its_candidates():
    """Labels drawn at random cannot be learnt: a model that has not seen a row guesses."""
    rng = np.random.default_rng(0)
    texts = tuple(f"word{number} thing{number}" for number in range(120))
    rows = LabelledRows(texts, tuple(rng.permutation([f"label{n % 6}" for n in range(120)])))
    suite = suite_of(rows, audit_config({"top_k": 3}))
    assert sum(one.guess == one.label for one in suite) / len(suite) < 0.4


def test_descriptions_reach_the_candidates(rows):
    name = rows.labels[0]
    suite = suite_of(rows, audit_config(), {name: "the first"})
    told = {one.label: one.description for item in suite for one in item.question.candidates}
    assert told.pop(name) == "the first"
    assert set(told.values()) == {""}


def test_the_size_is_kept_and_every_label_keeps_its_share(rows):
    suite = suite_of(rows, audit_config(size=60))
    counts = np.unique([one.label for one in suite], return_counts=True)[1]
    assert len(suite) == 60
    assert set(counts) == {5}


def test_the_only_row_of_a_label_is_not_asked_about(rows):
    more = LabelledRows((*rows.texts, "a lonely text"), (*rows.labels, "lonely"))
    assert "lonely" not in {one.label for one in suite_of(more, audit_config())}


def test_verify_asks_about_one_candidate(rows):
    suite = suite_of(rows, audit_config({"question": "verify"}))
    assert {(len(one.question.candidates), one.question.mode) for one in suite} == {(1, "verify")}
    assert {one.category for one in suite} == {"easy", "none"}


def test_the_same_seed_makes_the_same_suite_and_another_seed_another(rows):
    config = audit_config(size=60)
    assert suite_of(rows, config) == suite_of(rows, config)
    assert suite_of(rows, config) != suite_of(rows, config.model_copy(update={"seed": 7}))


def test_a_text_does_not_vote_for_itself(rows):
    """Every row under a label of its own would find itself first."""
    source = AuditRows.of(rows, audit_config())
    votes = crossfitted_votes(source)
    for place in range(0, len(rows), 17):
        assert max(similarity for _, similarity in votes(rows.texts[place])) < 0.999
