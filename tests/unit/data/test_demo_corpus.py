from collections import Counter, defaultdict
from importlib.resources import as_file, files
from itertools import combinations, pairwise

import pytest

from red_ray.core.text import normalise, text_key
from red_ray.data.demo import load_demo
from red_ray.data.tables import read_table

N_LABELS = 32


def read(name, text_column="text", label_column=None):
    with as_file(files("red_ray.data").joinpath("demo", name)) as path:
        return read_table(path, text_column=text_column, label_column=label_column)


@pytest.fixture(scope="module")
def messages():
    table = read("messages.csv", label_column="label")
    return list(zip(table.texts, table.labels, strict=True))


@pytest.fixture(scope="module")
def corpus():
    return load_demo(42)


def trigrams(text):
    words = normalise(text).split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def overlap(first, second):
    smaller = min(len(first), len(second))
    return len(first & second) / smaller if smaller else 0.0


class TestFiles:
    def test_enough_labels_with_enough_texts(self, messages):
        counts = Counter(label for _, label in messages)
        assert len(counts) >= N_LABELS
        assert {label: n for label, n in counts.items() if n < 40} == {}

    def test_every_label_is_described_and_no_other(self, messages):
        table = read("labels.csv", "description", "label")
        assert sorted(table.labels) == sorted({label for _, label in messages})
        assert all(text.strip() for text in table.texts)

    def test_no_text_stands_there_twice(self, messages):
        none = read("none.csv").texts
        counts = Counter(text_key(text) for text in [*(text for text, _ in messages), *none])
        repeated = [key for key, n in counts.items() if n > 1]
        assert repeated == []

    def test_no_text_or_label_is_blank_or_padded(self, messages):
        cells = [cell for row in messages for cell in row] + list(read("none.csv").texts)
        assert [cell for cell in cells if not cell or cell != cell.strip()] == []

    def test_no_two_texts_of_a_label_are_variants_of_one_template(self, messages):
        by_label = defaultdict(list)
        for text, label in messages:
            by_label[label].append((text, trigrams(text)))
        alike = [
            (label, first, second)
            for label, rows in by_label.items()
            for (first, a), (second, b) in combinations(rows, 2)
            if overlap(a, b) > 0.6
        ]
        assert alike == []

    def test_sixty_texts_fit_no_label(self):
        assert len(read("none.csv").texts) == 60


class TestLoad:
    def test_train_and_test_have_their_rows_per_label(self, corpus):
        labels = set(corpus.descriptions)
        assert Counter(corpus.train.labels) == dict.fromkeys(labels, 10)
        assert Counter(corpus.test.labels) == dict.fromkeys(labels, 12)

    def test_every_text_stands_in_one_place(self, corpus, messages):
        places = [*corpus.train.texts, *corpus.pool, *corpus.test.texts, *corpus.oos]
        everything = [text for text, _ in messages] + list(read("none.csv").texts)
        assert sorted(places) == sorted(everything)

    def test_labels_are_those_of_the_file(self, corpus, messages):
        truth = dict(messages)
        for rows in (corpus.train, corpus.test):
            assert [truth[text] for text in rows.texts] == list(rows.labels)
        assert [corpus.hidden.of(text) for text in corpus.pool] == [
            truth.get(text) for text in corpus.pool
        ]

    def test_half_of_the_texts_that_fit_no_label_are_in_the_pool(self, corpus):
        none = set(read("none.csv").texts)
        assert set(corpus.oos) <= none
        assert len(corpus.oos) == 30
        assert [corpus.hidden.of(text) for text in corpus.pool].count(None) == 30
        assert len(corpus.hidden) == len(corpus.pool) - 30

    def test_the_order_of_the_pool_does_not_show_the_labels(self, corpus):
        labels = [corpus.hidden.of(text) for text in corpus.pool]
        same = sum(first == second for first, second in pairwise(labels))
        assert same < len(labels) / 5

    def test_the_seed_decides_every_draw(self, corpus):
        assert load_demo(42) == corpus
        other = load_demo(43)
        assert other.train.texts != corpus.train.texts
        assert other.test.texts != corpus.test.texts
        assert set(other.oos) != set(corpus.oos)

    def test_texts_are_plain_strings(self, corpus):
        assert {type(text) for text in (*corpus.pool, *corpus.oos)} == {str}
