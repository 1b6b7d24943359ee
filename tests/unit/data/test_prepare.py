import pickle

import pytest

from red_ray.core.text import text_key
from red_ray.data.prepare import (
    DropCounts,
    HiddenLabels,
    LabelledRows,
    check_trainable,
    clean_labelled,
    clean_pool,
    weak_labels,
)
from red_ray.data.tables import Table, read_table
from red_ray.errors import DataError


def labelled(*rows):
    return Table(tuple(text for text, _ in rows), tuple(label for _, label in rows))


class TestCleanLabelled:
    def test_clean_rows_stay_as_written_and_in_order(self):
        rows, drops = clean_labelled(labelled(("  B b ", "y"), ("a", " x ")), max_chars=99)
        assert rows == LabelledRows(("  B b ", "a"), ("y", "x"))
        assert len(rows) == 2
        assert drops == DropCounts()
        assert drops.lines() == []

    def test_each_reason_is_counted_on_its_own(self):
        table = labelled(
            ("kept", "x"),
            (None, "x"),
            ("", "x"),
            (" \u00a0\n", "x"),
            ("a" * 11, "x"),
            ("no label", None),
            ("no label", " "),
            ("no label", ""),
            ("KEPT ", "x"),
            ("Kept", "y"),
            ("kept", "z"),
            ("other", "y"),
        )
        rows, drops = clean_labelled(table, max_chars=10)
        assert rows == LabelledRows(("kept", "other"), ("x", "y"))
        assert drops == DropCounts(
            missing=1, empty=2, too_long=1, unlabelled=3, repeated=1, conflicting=2
        )
        assert drops.total == 10

    def test_the_word_nan_is_a_text_and_a_label(self, tmp_path):
        path = tmp_path / "nan.csv"
        path.write_text("text,label\nnan,nan\nNaN is odd,None\n", encoding="utf-8")
        table = read_table(path, text_column="text", label_column="label")
        rows, drops = clean_labelled(table, max_chars=99)
        assert rows == LabelledRows(("nan", "NaN is odd"), ("nan", "None"))
        assert drops.total == 0

    def test_a_float_nan_is_no_text_and_no_label(self, tmp_path):
        path = tmp_path / "nan.jsonl"
        path.write_text(
            '{"text": NaN, "label": "x"}\n{"text": "b", "label": NaN}\n{"text": "c", "label": 1}\n',
            encoding="utf-8",
        )
        table = read_table(path, text_column="text", label_column="label")
        rows, drops = clean_labelled(table, max_chars=99)
        assert rows == LabelledRows(("c",), ("1",))
        assert drops == DropCounts(missing=1, unlabelled=1)

    def test_a_text_of_exactly_max_chars_stays(self):
        rows, _ = clean_labelled(labelled(("a" * 10, "x")), max_chars=10)
        assert rows.texts == ("a" * 10,)

    def test_labels_that_differ_in_white_space_only_do_not_conflict(self):
        _, drops = clean_labelled(labelled(("a", "x"), ("a", " x")), max_chars=9)
        assert drops == DropCounts(repeated=1)

    def test_a_row_without_a_label_does_not_hide_a_later_one(self):
        rows, drops = clean_labelled(labelled(("a", None), ("a", "x")), max_chars=9)
        assert rows == LabelledRows(("a",), ("x",))
        assert drops == DropCounts(unlabelled=1)

    def test_no_row_left_says_why(self):
        with pytest.raises(DataError, match="no usable row is left; dropped 2 rows: an empty"):
            clean_labelled(labelled(("", "x"), (" ", "x")), max_chars=9)

    def test_a_table_without_labels_is_refused(self):
        with pytest.raises(DataError, match="set label_column"):
            clean_labelled(Table(("a",), None), max_chars=9)


class TestCleanPool:
    def test_labels_are_hidden_and_training_rows_dropped(self):
        table = labelled(("new", " x "), ("Train  row", "y"), ("bare", None), (None, "z"))
        texts, hidden, drops = clean_pool(
            table, max_chars=99, known=frozenset({text_key("train row")})
        )
        assert texts == ("new", "bare")
        assert [hidden.of(text) for text in texts] == ["x", None]
        assert len(hidden) == 1
        assert hidden.of("Train row") is None
        assert drops == DropCounts(missing=1, known=1)

    def test_a_pool_without_labels_hides_none(self):
        texts, hidden, drops = clean_pool(
            Table(("a", "A", "b"), None), max_chars=9, known=frozenset()
        )
        assert texts == ("a", "b")
        assert not hidden
        assert drops == DropCounts(repeated=1)

    def test_a_repeat_with_another_hidden_label_keeps_the_first(self):
        table = labelled(("a", "x"), ("A", "y"), ("a", "x"), ("a", None), ("b", None), ("b", "z"))
        texts, hidden, drops = clean_pool(table, max_chars=9, known=frozenset())
        assert texts == ("a", "b")
        assert (hidden.of("a"), hidden.of("b")) == ("x", None)
        assert drops == DropCounts(repeated=3, conflicting=1)

    def test_a_pool_may_be_used_up(self):
        texts, hidden, drops = clean_pool(
            Table(("a",), None), max_chars=9, known=frozenset({text_key("a")})
        )
        assert (texts, len(hidden), drops) == ((), 0, DropCounts(known=1))


class TestHiddenLabels:
    def test_a_label_is_found_by_the_normalised_text(self):
        hidden = HiddenLabels({text_key("Some text"): "x"})
        assert hidden.of("  some TEXT") == "x"
        assert hidden.of("another") is None

    def test_its_truth_is_whether_there_are_any(self):
        assert HiddenLabels({text_key("a"): "x"})
        assert not HiddenLabels({})

    def test_its_repr_shows_no_content(self):
        key = text_key("secret text")
        shown = repr(HiddenLabels({key: "secret label"}))
        assert shown == "HiddenLabels(n_texts=1)"

    def test_it_does_not_follow_the_mapping_it_was_made_from(self):
        source = {text_key("a"): "x"}
        hidden = HiddenLabels(source)
        source.clear()
        assert hidden.of("a") == "x"

    def test_it_crosses_a_process_border(self):
        hidden = pickle.loads(pickle.dumps(HiddenLabels({text_key("a"): "x"})))
        assert hidden.of("a") == "x"


class TestDropCounts:
    def test_one_line_per_reason_that_held(self):
        lines = DropCounts(missing=1, too_long=2, known=3).lines()
        assert [line.split(":")[0] for line in lines] == [
            "dropped 1 row",
            "dropped 2 rows",
            "dropped 3 rows",
        ]
        assert "max_chars" in lines[1]

    def test_every_reason_has_its_own_line(self):
        counts = DropCounts(1, 1, 1, 1, 1, 1, 1)
        assert len(set(counts.lines())) == 7
        assert counts.total == 7


class TestTrainable:
    def test_two_labels_are_enough(self):
        check_trainable(LabelledRows(("a", "b"), ("x", "y")))

    def test_one_label_is_not(self):
        with pytest.raises(DataError, match="2 training rows hold only the label 'x'; give rows"):
            check_trainable(LabelledRows(("a", "b"), ("x", "x")))

    def test_nor_is_none(self):
        with pytest.raises(DataError, match="0 training rows hold no label"):
            check_trainable(LabelledRows((), ()))

    def test_weak_labels_have_one_example(self):
        assert weak_labels(["b", "z", "a", "z", "c", "a"]) == ("b", "c")
        assert weak_labels([]) == ()
