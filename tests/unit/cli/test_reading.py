"""What `red-ray train` begins with where there is no --train."""

from __future__ import annotations

import pytest

from red_ray.cli.reading import read_examples, read_rows
from red_ray.config import RunConfig
from red_ray.errors import ConfigError, DataError
from tests.unit.cli.running import said, write_rows, write_run
from tests.unit.training.fakes import FakeValidator, make_corpus, train, truth

ASKED = RunConfig(judge={"spec": "simulated:0.9"})


@pytest.fixture
def labels(tmp_path):
    return write_rows(tmp_path / "labels.csv", [("pay",), ("ship",)], "label")


@pytest.fixture
def pool(tmp_path):
    return write_rows(
        tmp_path / "pool.csv", [("where is it", "ship"), ("pay me", "pay")], "text", "label"
    )


def test_labels_a_pool_and_a_judge_are_enough(labels, pool):
    inputs = read_rows(ASKED, None, pool, labels, None)
    assert (inputs.labels, len(inputs.train), len(inputs.pool)) == (("pay", "ship"), 0, 2)


@pytest.mark.parametrize(
    ("config", "with_pool", "why"),
    [
        (RunConfig(), True, "2 of 2 labels have no labelled row; give --judge and --pool"),
        (ASKED, False, "2 of 2 labels have no labelled row; give --judge and --pool"),
        (RunConfig(judge={"spec": "neighbours"}), True, "'neighbours' votes with such rows"),
        (RunConfig(samples_per_class=3, judge={"spec": "simulated:0.9"}), True, "draws from"),
    ],
)
def test_what_is_missing_is_told(labels, pool, config, with_pool, why):
    with pytest.raises(ConfigError, match=why):
        read_rows(config, None, pool if with_pool else None, labels, None)


def test_nothing_at_all_is_a_mistake(red_ray, tmp_path):
    said(red_ray("train", "--out", tmp_path / "out"), 2, "nothing to train on: give --train")
    assert not (tmp_path / "out").exists()


def test_test_rows_cannot_be_held_back_from_none(red_ray, labels, pool, tmp_path):
    arguments = ("--descriptions", labels, "--pool", pool, "--judge", "simulated:0.9")
    more = ("--test-fraction", "0.2", "--out", tmp_path / "out")
    said(red_ray("train", *arguments, *more), 2, "there are none: give --test")


@pytest.fixture
def corpus():
    return make_corpus(4, per_label=3, pool_per_label=4)


@pytest.fixture
async def run(tmp_path, corpus):
    trained = await train(corpus.job(), FakeValidator(truth(corpus)))
    return write_run(tmp_path / "old", corpus, trained)


@pytest.mark.parametrize("whole", [True, False])
async def test_a_run_or_its_bundle_gives_its_examples(run, corpus, whole):
    known = read_examples(str(run.path if whole else run.bundle))
    assert dict(zip(known.by_user.texts, known.by_user.labels, strict=True)) == dict(
        zip(corpus.texts, corpus.labels, strict=True)
    )
    assert set(known.by_judge.texts) <= set(corpus.pool)
    assert len(known.by_judge) > 0
    assert known.labels == corpus.names


async def test_a_warm_start_needs_no_judge_where_every_label_has_examples(run):
    inputs = read_rows(RunConfig(), None, None, None, str(run.path))
    assert (inputs.unseen, len(inputs.train)) == ((), 12)


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(DataError, match="is no finished run"):
        read_examples(str(tmp_path / "nowhere"))
