"""Packed or sharded, the same is made of the same texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pytest

from red_ray.errors import RunError
from red_ray.run_folder import RunFolder
from serve.loaded import Loaded
from serve.scoring import PackedScorer, Scored, ShardedScorer, together

LAYOUTS = [0, 1, 2, 3, 7]
"""Numbers of shards, from none, which is packed, to more than there are experts."""


class Shard:
    """The experts i, i + n, …, in this process."""

    def __init__(self, model, position, n_shards):
        self.experts = model.experts[position::n_shards]
        self.asked = []

    async def score(self, bundle, texts, vectors):
        self.asked.append((bundle, list(texts)))
        return [expert.score(vectors) for expert in self.experts]


@pytest.fixture
def loaded(half, tmp_path):
    now = datetime.now(UTC)
    return Loaded(half, RunFolder(tmp_path), half.config, ("", 0), now, 100.0)


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as made:
        yield made


def scorer_of(loaded, thread, n_shards):
    if not n_shards:
        return PackedScorer(thread)
    return ShardedScorer(
        thread, [Shard(loaded.model, position, n_shards) for position in range(n_shards)]
    )


@pytest.mark.parametrize("n_shards", LAYOUTS)
async def test_every_layout_says_what_the_model_says(loaded, thread, corpus, n_shards):
    model = loaded.model
    found = await scorer_of(loaded, thread, n_shards).score(loaded, corpus.test)
    vectors = model.loaded_encoder.encode(corpus.test)
    np.testing.assert_array_equal(found.vectors, vectors)
    wanted = model.assess(corpus.test, vectors)
    np.testing.assert_allclose(found.assessment.distribution, wanted.distribution, atol=1e-6)
    np.testing.assert_allclose(found.assessment.label_risk, wanted.label_risk, atol=1e-6)
    decisions = [(one.label, one.decision) for one in model.decide(found.assessment)]
    assert decisions == [(one.label, one.decision) for one in model.predict(corpus.test)]
    assert found.evidence.shape[:2] == (len(corpus.test), len(model.labels))
    assert min(found.encode_ms, found.evidence_ms) > 0


@pytest.mark.parametrize("n_shards", LAYOUTS)
async def test_a_part_and_the_parts_together(loaded, thread, corpus, n_shards):
    whole = await scorer_of(loaded, thread, n_shards).score(loaded, corpus.test[:7])
    parts = [whole.cut(0, 2), whole.cut(2, 3), whole.cut(3, 7)]
    assert [len(part.vectors) for part in parts] == [2, 1, 4]
    again = together(parts)
    _same(again, whole)
    assert again.encode_ms == pytest.approx(3 * whole.encode_ms)
    assert together([whole]) is whole


def _same(one: Scored, other: Scored) -> None:
    np.testing.assert_array_equal(one.vectors, other.vectors)
    np.testing.assert_array_equal(one.evidence, other.evidence)
    np.testing.assert_array_equal(one.assessment.distribution, other.assessment.distribution)
    np.testing.assert_array_equal(one.assessment.label_risk, other.assessment.label_risk)


async def test_shards_are_told_the_bundle_and_the_texts(loaded, thread):
    shard = Shard(loaded.model, 0, 1)
    await ShardedScorer(thread, [shard]).score(loaded, ["a", "b"])
    place = str(loaded.run.path / "bundle")
    assert shard.asked == [((loaded.model.bundle_id, place), ["a", "b"])]


async def test_a_shard_reads_a_bundle_before_the_first_call_needs_it(loaded, thread):
    shards = [Shard(loaded.model, position, 2) for position in range(2)]
    await ShardedScorer(thread, shards).warm(loaded)
    assert [len(shard.asked) for shard in shards] == [1, 1]


async def test_a_shard_that_fails_fails_the_call(loaded, thread):
    class Gone(Shard):
        async def score(self, bundle, texts, vectors):
            raise RunError("a shard died")

    shards = [Shard(loaded.model, 0, 2), Gone(loaded.model, 1, 2)]
    with pytest.raises(RunError, match="a shard died"):
        await ShardedScorer(thread, shards).score(loaded, ["a"])


async def test_a_short_text_alone_wakes_no_other_thread(loaded, thread, corpus):
    short, long = corpus.test[0], " ".join([corpus.test[0]] * 40)
    scorer = PackedScorer(thread)
    expected = [await scorer.score(loaded, texts) for texts in ([short], [long])]
    thread.shutdown()
    _same(await scorer.score(loaded, [short]), expected[0])
    for texts in ([long], [short, short]):
        with pytest.raises(RuntimeError, match="after shutdown"):
            await scorer.score(loaded, texts)
