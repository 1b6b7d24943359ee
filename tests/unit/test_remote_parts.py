"""Parts of an output at an address: what is finished is not done again, nothing is lost."""

from __future__ import annotations

import pandas as pd
import pytest

from red_ray.address import Remote
from red_ray.batch import RemoteParts, read_shards
from red_ray.batch.parts import JOB, MANIFEST
from red_ray.batch.remote_parts import MANIFEST_EVERY_S
from red_ray.errors import OutputError
from tests.unit.test_batch_parts import N_ROWS, N_SHARDS, ids, job, made, small_shards, source

__all__ = ["job", "small_shards", "source"]


@pytest.fixture(params=["out.csv", "out"])
def path(request, tmp_path):
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / request.param


@pytest.fixture
def target(path):
    return f"file://{path}"


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def fill(parts, source, numbers=range(N_SHARDS)):
    for shard in read_shards(source, "text", parts.done):
        if shard.number in numbers:
            parts.add(made(parts, shard))


def cut_short(target, job, source, numbers=(0, 1, 2)):
    with RemoteParts.open(target, job) as parts:
        fill(parts, source, numbers)
    return Remote(f"{target}.parts")


def test_an_output_is_put_together_and_its_parts_are_gone(target, path, job, source):
    with RemoteParts.open(target, job) as parts:
        fill(parts, source)
        assert parts.counts.rows == N_ROWS
        parts.finish()
    assert ids(path) == list(range(N_ROWS))
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_where_nothing_was_finished_nothing_is_left(target, path, job):
    with RemoteParts.open(target, job):
        pass
    assert list(path.parent.iterdir()) == []


def test_what_is_finished_is_not_done_again(target, path, job, source):
    left = cut_short(target, job, source)
    assert {JOB, MANIFEST, "part-000000.parquet"} <= left.list().keys()
    with RemoteParts.open(target, job, resume=True) as parts:
        assert sorted(parts.done) == [0, 1, 2]
        fill(parts, source)
        parts.finish()
    assert ids(path) == list(range(N_ROWS))


def test_a_part_whose_line_was_lost_is_made_again(target, job, source):
    clock = Clock()
    parts = RemoteParts(target, clock=clock)
    opened = RemoteParts.open(target, job)
    parts.done = opened.done
    fill(parts, source, (0,))
    clock.now_s += MANIFEST_EVERY_S
    fill(parts, source, (1,))
    fill(parts, source, (2,))  # and then the driver is killed
    with RemoteParts.open(target, job, resume=True) as again:
        assert sorted(again.done) == [0, 1]
        assert "part-000002.parquet" not in Remote(again.path).list()


def test_a_part_of_another_size_does_not_count(target, job, source):
    left = cut_short(target, job, source)
    left.write("part-000001.parquet", b"torn")
    with RemoteParts.open(target, job, resume=True) as parts:
        assert sorted(parts.done) == [0, 2]


def test_a_part_that_is_not_there_is_told(target, job, source):
    with RemoteParts.open(target, job) as parts:
        finished = made(parts, next(iter(read_shards(source, "text"))))
        Remote(parts.path).remove("part-000000.parquet")
        with pytest.raises(OutputError, match="do all machines reach the same server"):
            parts.add(finished)


def test_without_a_finished_shard_nothing_is_left(target, job):
    with RemoteParts.open(target, job) as parts:
        assert Remote(parts.path).list()
    assert not Remote(f"{target}.parts").list()


def test_an_unfinished_output_is_not_replaced_unasked(target, job, source):
    cut_short(target, job, source)
    with pytest.raises(OutputError, match="is unfinished: --resume goes on"):
        RemoteParts.open(target, job)
    with RemoteParts.open(target, job, overwrite=True) as parts:
        assert not parts.done


def test_parts_of_another_job_are_not_gone_on_with(target, job, source, tmp_path):
    cut_short(target, job, source)
    pd.DataFrame({"id": [1], "text": "x"}).to_csv(source, index=False)
    other = type(job).of(source, "b" * 64, top_k=3)
    with pytest.raises(OutputError, match="has changed since"):
        RemoteParts.open(target, other, resume=True)


def test_a_folder_of_somebody_else_is_not_replaced(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("x")
    with pytest.raises(OutputError, match="holds something else"):
        RemoteParts.open(f"file://{tmp_path}/out", job, overwrite=True)
    assert (tmp_path / "out" / "thesis.doc").exists()


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_what_somebody_else_keeps_where_parts_would_go_stays(target, job, flags):
    others = Remote(f"{target}.parts")
    others.write("deep/thesis.doc", b"x")
    with pytest.raises(OutputError, match=r"out.*\.parts' is in the way: move it"):
        RemoteParts.open(target, job, **flags)
    assert list(others.list()) == ["deep/thesis.doc"]


def test_what_comes_to_lie_beside_the_parts_stays(target, path, job, source):
    left = cut_short(target, job, source)
    left.write("notes.txt", b"x")
    with RemoteParts.open(target, job, resume=True) as parts:
        fill(parts, source)
        parts.finish()
    assert list(left.list()) == ["notes.txt"]
    assert ids(path) == list(range(N_ROWS))


def test_parquet_of_somebody_else_is_not_replaced(job, tmp_path):
    """Others name their parts so too; what is ours has the job beside them."""
    there = Remote(f"file://{tmp_path}/out")
    there.write("part-0001.parquet", b"x")
    with pytest.raises(OutputError, match="holds something else"):
        RemoteParts.open(there.address, job, overwrite=True)
    assert list(there.list()) == ["part-0001.parquet"]


def test_an_output_that_was_half_in_place_is_gone_on_with(job, source, tmp_path):
    target = f"file://{tmp_path}/out"
    left = cut_short(target, job, source, range(N_SHARDS))
    left.copy("part-000000.parquet", Remote(target))
    with RemoteParts.open(target, job, resume=True) as parts:
        parts.finish()
    assert ids(tmp_path / "out") == list(range(N_ROWS))


def test_a_format_that_is_not_written_is_told(job, tmp_path):
    with pytest.raises(OutputError, match=r"the extension '\.doc' is not one of"):
        RemoteParts.open(f"file://{tmp_path}/out.doc", job)
