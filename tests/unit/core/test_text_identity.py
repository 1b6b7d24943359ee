import hashlib

import numpy as np
import pytest

from red_ray.core.text import checked_texts, normalise, text_key


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("  Hello\t\n World ", "hello world"),
        ("Straße", "strasse"),
        ("ﬁve ½", "five 1⁄2"),  # a ligature, a fraction
        ("Ｆｕｌｌ　width", "full width"),
        ("cafe\u0301", "café"),
        ("no\u00a0break", "no break"),
        ("", ""),
        (" \u2003\n", ""),
    ],
)
def test_normalise_folds_what_a_reader_takes_for_the_same(written, normal):
    assert normalise(written) == normal


def test_normalise_keeps_punctuation_and_accents():
    assert normalise("Où est-il?") == "où est-il?"
    assert normalise("resume") != normalise("résumé")


def test_normalising_twice_changes_nothing():
    rng = np.random.default_rng(0)
    for _ in range(300):
        code_points = rng.integers(0x20, 0x2FFF, size=12)
        text = "".join(chr(point) for point in code_points)
        assert normalise(normalise(text)) == normalise(text)


def test_text_key_is_the_hash_of_the_normal_form():
    assert text_key("  Hello  World ") == hashlib.sha256(b"hello world").hexdigest()


def test_text_key_tells_texts_apart():
    assert text_key("a b") == text_key("A  B")
    assert text_key("a b") != text_key("ab")


def test_text_key_takes_half_a_surrogate_pair():
    assert len(text_key("broken \ud83d emoji")) == 64


def test_what_holds_texts_is_taken_as_it_is():
    texts = ["a", "b"]
    assert checked_texts(texts) is texts
    assert checked_texts(iter(texts)) == texts
    assert checked_texts(np.array(texts)) == texts


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("a", "put it into a list"),
        (np.array([["a"]]), "got a table; give its column"),
        (["a", None], r"texts\[1\] is a NoneType"),
        ([3], r"texts\[0\] is a int"),
    ],
)
def test_what_holds_none_is_refused(wrong, told):
    with pytest.raises(TypeError, match=told):
        checked_texts(wrong)
