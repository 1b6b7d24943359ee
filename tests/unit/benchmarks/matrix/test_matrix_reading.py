"""The reader of answers names a label or none; never the first one for want of another."""

from __future__ import annotations

import pytest

from benchmarks.matrix.methods.base import UNREADABLE
from benchmarks.matrix.methods.reading import read_answer

SENTIMENT = ("negative", "positive")
RTE = ("entailment", "not_entailment")
NLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("raw", "words", "index"),
    [
        ("positive", SENTIMENT, 1),
        ("  Positive.\n", SENTIMENT, 1),
        ('"NEGATIVE"', SENTIMENT, 0),
        ("**negative**", SENTIMENT, 0),
        ("- positive", SENTIMENT, 1),
        ("The sentiment is positive.", SENTIMENT, 1),
        ("positive, positive!", SENTIMENT, 1),
        ("```\npositive\n```", SENTIMENT, 1),
        ("<think>negative? no.</think>\npositive", SENTIMENT, 1),
        ('{"answer": "negative"}', SENTIMENT, 0),
        ("entailment", RTE, 0),
        ("not_entailment", RTE, 1),
        ("not entailment", RTE, 1),
        ("Not-Entailment.", RTE, 1),
        ("Yes, it does.", ("yes", "no"), 0),
        ("No", ("yes", "no"), 1),
        ("ｐositive", SENTIMENT, 1),  # full width, as NFKC folds it
        ("C++", ("C", "C++"), 1),
        ("-", ("+", "-"), 1),
    ],
)
def test_an_answer_that_names_one_word_is_its_label(raw, words, index):
    assert read_answer(raw, words) == index


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", SENTIMENT),
        ("   \n", SENTIMENT),
        ("I cannot say.", SENTIMENT),
        ("positive or negative", SENTIMENT),
        ("positively", SENTIMENT),  # the word does not stand whole
        ("nonpositive", SENTIMENT),
        ("not positive", SENTIMENT),  # denied, and no other one named
        ("It isn't negative.", SENTIMENT),
        ("entailment, or not_entailment", RTE),
        ("neutral contradiction", NLI),
        ("entail", NLI),
        ("<think>positive", SENTIMENT),  # cut off while it thought
        ("0", SENTIMENT),
        ("yes and no", ("yes", "no")),
        ("a b", ("a_b", "a-b")),  # cannot be told apart
    ],
)
def test_anything_else_is_unreadable_and_no_label(raw, words):
    assert read_answer(raw, words) == UNREADABLE
    assert read_answer(raw, tuple(reversed(words))) == UNREADABLE
