"""The examples of a model as rows of another run."""

from __future__ import annotations

from red_ray.data.inputs import Inputs
from red_ray.data.prepare import HiddenLabels, LabelledRows
from red_ray.data.warm import KnownExamples, warm_started

NO_ROWS = LabelledRows((), ())
KNOWN = KnownExamples(
    name="old",
    labels=("pay", "ship", "spam"),
    descriptions={"pay": "of the model", "spam": "gone"},
    by_user=LabelledRows(("pay a", "ship a", "spam a"), ("pay", "ship", "spam")),
    by_judge=LabelledRows(("pay b", "spam b"), ("pay", "spam")),
)


def inputs(train=NO_ROWS, pool=(), labels=(), descriptions=None) -> Inputs:
    return Inputs(train, pool, HiddenLabels({}), descriptions or {}, labels=labels)


def test_rows_join_where_the_labels_agree_and_keep_who_gave_them():
    found = warm_started(inputs(labels=("pay", "refund", "ship")), KNOWN)
    assert found.train == LabelledRows(("pay a", "ship a"), ("pay", "ship"))
    assert found.judged == LabelledRows(("pay b",), ("pay",))
    assert found.label_set == {"pay", "refund", "ship"}
    assert found.unseen == ("refund",)


def test_what_was_taken_over_and_what_not_is_named():
    *_, joined, left = warm_started(inputs(labels=("pay", "ship")), KNOWN).notes
    assert (
        "from 'old': 3 examples of 2 labels joined (2 labelled by the user, 1 by a judge)" in joined
    )
    assert left.endswith("no such label: spam")


def test_a_label_in_the_files_outranks_the_models():
    train = LabelledRows(("PAY  a", "ship z"), ("ship", "ship"))
    found = warm_started(inputs(train, labels=("pay",)), KNOWN)
    assert dict(zip(found.train.texts, found.train.labels, strict=True)) == {
        "PAY  a": "ship",
        "ship z": "ship",
        "ship a": "ship",
    }


def test_examples_that_stand_there_already_are_told():
    train = LabelledRows(("PAY  a", "ship a", "pay b"), ("ship", "ship", "pay"))
    joined, _, own = warm_started(inputs(train), KNOWN).notes
    assert "0 examples of 0 labels joined" in joined
    assert own == (
        "warm start: 3 examples not taken over, as the run's own rows have these texts, 1 of them "
        "under another label, which stays"
    )
    one = warm_started(inputs(LabelledRows(("ship a",), ("ship",))), KNOWN).notes[-1]
    assert one == "warm start: 1 example not taken over, as the run's own rows have these texts"


def test_training_rows_alone_name_the_labels():
    found = warm_started(inputs(LabelledRows(("ship z",), ("ship",))), KNOWN)
    assert found.label_set == {"ship"}
    assert found.judged == NO_ROWS


def test_a_run_without_labels_of_its_own_has_those_of_the_model():
    found = warm_started(inputs(), KNOWN)
    assert found.label_set == {"pay", "ship", "spam"}
    assert len(found.train) + len(found.judged) == 5
    assert len(found.notes) == 1


def test_what_joined_is_seen_and_is_no_longer_asked_about():
    found = warm_started(inputs(pool=("Pay B", "ship q"), labels=("pay", "ship")), KNOWN)
    assert found.pool == ("ship q",)
    assert len(found.seen_keys) == 4


def test_descriptions_of_the_files_outrank_the_models():
    found = warm_started(inputs(labels=("pay", "ship")), KNOWN)
    assert found.descriptions == {"pay": "of the model"}
    found = warm_started(inputs(labels=("pay",), descriptions={"pay": "mine"}), KNOWN)
    assert found.descriptions == {"pay": "mine"}
