"""Runs at an S3 address: killed with all that was on the machine, gone on with from another."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import red_ray
from red_ray.address import Remote
from red_ray.batch import BatchCounts, Finished, Job, RemoteParts, read_shards
from red_ray.batch.parts import write_part
from red_ray.encoding import CachedEncoder, EmbeddingStore, EncoderSpec
from red_ray.errors import OutputError, StorageError
from tests import killing
from tests.servers import ServerProcess, hash_of
from tests.services import postgres, s3, serving

SPEC = EncoderSpec("m", None, "0" * 64, "float32", 256, None, "", True, 32)
LIMIT_S = 420.0


class Lengths:
    """An encoder that counts what it is asked."""

    spec = SPEC
    dim = 2

    def __init__(self):
        self.n_texts = 0

    def encode(self, texts):
        self.n_texts += len(texts)
        lengths = np.array([[len(text), 1.0] for text in texts], dtype=np.float32)
        return lengths / np.linalg.norm(lengths, axis=1, keepdims=True)


def answers(ledger: str) -> dict[str, tuple[str, str | None]]:
    statement = "SELECT key, outcome, label FROM verdicts WHERE outcome IN ('label', 'none')"
    with psycopg.connect(ledger) as connection:
        return {key: (outcome, label) for key, outcome, label in connection.execute(statement)}


def in_flight(ledger: str) -> Counter[str]:
    statement = "SELECT text FROM requests JOIN verdicts USING (key) WHERE requests.result IS NULL"
    with psycopg.connect(ledger) as connection:
        return Counter(hash_of(text) for (text,) in connection.execute(statement))


def test_a_run_killed_with_its_machine_goes_on_from_storage_elsewhere(
    bucket: str,
    s3_server: str,
    postgres_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(killing, "LIMIT_S", LIMIT_S)
    whole, cut = f"{bucket}/runs/whole", f"{bucket}/runs/cut"
    variables = s3.variables(s3_server) | {"RED_RAY_CACHE": f"{bucket}/embeddings"}
    variables |= {"RAY_raylet_start_wait_time_s": "180"}  # other tests may keep the machine busy
    with ExitStack() as stack:
        ledgers = [stack.enter_context(postgres.place(postgres_server)) for _ in range(2)]
        for name in ("here", "elsewhere"):
            (tmp_path / name / "tmp").mkdir(parents=True)
        here, elsewhere = (
            stack.enter_context(
                killing.place(tmp_path / name, TMPDIR=str(tmp_path / name / "tmp"), **variables)
            )
            for name in ("here", "elsewhere")
        )
        delay = ("--delay-ms", "100")
        with ServerProcess(tmp_path / "whole.journal", *delay) as server:
            address, port = server.base_url, server.base_url.rsplit(":", 1)[1].split("/")[0]
            undisturbed = here.train(whole, address, judge__ledger=ledgers[0])
            assert undisturbed.wait(LIMIT_S) == 0, undisturbed.stderr
            n_paid = len(server.served())
        shards = Remote(f"{bucket}/embeddings").list()
        assert shards
        with ServerProcess(tmp_path / "cut.journal", "--port", port, *delay) as server:
            command = here.train(cut, address, judge__ledger=ledgers[1])
            moment = killing.asking_after(killing.PER_ROUND + 5)
            workers = killing.kill_at(moment, "everything", command, server, tmp_path)
            standing = answers(ledgers[1])
            left = Remote(cut).list()
            assert {"run.json", "config.yaml", "inputs.parquet", "seen.txt"} <= left.keys()
            assert "bundle/manifest.json" not in left
            assert 0 < len(standing) < len(answers(ledgers[0]))
            command = elsewhere.resume(cut)
            assert command.wait(LIMIT_S) == 0, command.stderr
            assert "1 finished iterations are run again" in command.stderr
            served = [line["text"] for line in server.served()]
        first, second = json.loads(undisturbed.stdout), json.loads(command.stdout)
        assert second["bundle"] == first["bundle"]
        assert second["run"] == cut
        told = answers(ledgers[1])
        assert told == answers(ledgers[0])
        assert standing.items() <= told.items()
        doubled = Counter(served) - Counter(set(served))
        assert len(served) == n_paid + doubled.total()
        assert doubled <= in_flight(ledgers[1])
        assert Remote(f"{bucket}/embeddings").list() == shards
        # The killed command's copy stays, the others' are gone.
        assert len(list((tmp_path / "here" / "tmp").glob("red-ray-*"))) == 1
        assert not list((tmp_path / "elsewhere" / "tmp").glob("red-ray-*"))
        check_it_is_used(elsewhere, cut, second["bundle"], tmp_path)
        check_it_is_served(elsewhere, cut, second["bundle"])
        killing.outliving(workers, limit_s=0)


def check_it_is_used(place: killing.Place, run: str, bundle: str, folder: Path) -> None:
    """Evaluate, classify, stats and load, from storage alone."""
    test, decided = str(place.folder / "test.csv"), f"{run}-decided.csv"
    verbs = (
        ("evaluate", run, "--test", test, "--json"),
        ("classify", run, "--input", test, "--output", decided, "--json"),
        ("report", run),
        ("ledger", "stats", run, "--json"),
    )
    commands = []
    for verb in verbs:
        commands.append(place.command(*verb))
        assert commands[-1].wait(LIMIT_S) == 0, commands[-1].stderr
    Remote(run.rpartition("/")[0]).download(["cut-decided.csv"], folder)
    assert (
        len((folder / "cut-decided.csv").read_text().splitlines())
        == json.loads(commands[1].stdout)["rows"] + 1
    )
    evaluated, classified, report, stats = (command.stdout for command in commands)
    assert json.loads(evaluated)["bundle"] == json.loads(classified)["bundle"] == bundle
    assert report.strip() == f"{run}/report.html"
    assert json.loads(stats)["ledger"] == run
    assert red_ray.load(run).bundle_id == bundle
    assert {"report.html", "scorecard.json", "tested.txt"} <= Remote(run).list().keys()


def check_it_is_served(place: killing.Place, run: str, bundle: str) -> None:
    """The endpoint answers from storage, and takes over what new thresholds put there."""
    where = serving.Place(place.folder, place.ray, place.environment)
    with serving.Served(where, run, "--replicas", "1", "--judge", "off") as served:
        assert served.classify(["where is my parcel"])["bundle"] == bundle
        command = place.command("thresholds", run, "--goal", "escalate_at_most=0.5", "--json")
        assert command.wait(LIMIT_S) == 0, command.stderr
        changed = red_ray.load(run).bundle_id
        assert changed != bundle
        serving.until(lambda: served.classify(["where is my parcel"])["bundle"] == changed)


def test_a_store_filled_by_one_machine_is_read_by_another(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"text {'x' * n}" for n in range(50)]
    vectors = []
    for home, n_encoded in (("one", 50), ("two", 0)):
        monkeypatch.setenv("HOME", str(tmp_path / home))
        encoder = Lengths()
        cached = CachedEncoder(encoder, EmbeddingStore(f"{bucket}/store", SPEC))
        vectors.append(cached.encode(texts))
        assert encoder.n_texts == cached.n_encoded == n_encoded
    assert (vectors[0] == vectors[1]).all()


def test_what_another_machine_adds_is_seen_at_the_next_miss(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = []
    for home in ("one", "two"):
        monkeypatch.setenv("HOME", str(tmp_path / home))
        stores.append(EmbeddingStore(f"{bucket}/store", SPEC))
    stores[0].put(["a"], np.ones((1, 2), dtype=np.float32))
    stores[1].put(["a", "b"], np.ones((2, 2), dtype=np.float32))
    found, _ = stores[0].get(["a", "b", "c"])
    assert found.tolist() == [True, True, False]


def test_a_bucket_that_is_not_there_is_the_users_mistake(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"does not exist.*check the bucket's name"):
        Remote("s3://no-such-bucket-of-ours/runs").upload({"file": tmp_path / "file"})


def test_a_server_that_is_away_is_a_failure_and_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    address = "s3://key:pass-word@away/runs?endpoint_override=127.0.0.1:9&scheme=http&region=x"
    with pytest.raises(StorageError, match=re.escape("cannot list 's3://away/runs': ")) as told:
        Remote(address).list()
    assert "pass-word" not in str(told.value)


def test_google_that_cannot_be_reached_ends_in_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its client reads no setting for this: a server of Google's that is a closed port.
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    address = "gs://anonymous@bucket/runs?endpoint_override=127.0.0.1:9&scheme=http"
    with pytest.raises(StorageError, match="cannot list 'gs://bucket/runs': "):
        Remote(f"{address}&retry_limit_seconds=2").list()


@pytest.mark.parametrize("name", ["out.csv", "out"])
def test_a_table_is_put_together_in_a_bucket(bucket: str, tmp_path: Path, name: str) -> None:
    table = pa.table({"id": list(range(10_000)), "text": ["hello"] * 10_000})
    pq.write_table(table, tmp_path / "in.parquet")
    job = Job.of(tmp_path / "in.parquet", "b" * 64, top_k=3)
    target = f"{bucket}/{name}"
    for kept in (1, 2):  # cut short after so many shards, the second time gone on with
        with RemoteParts.open(target, job, resume=True) as parts:
            assert len(parts.done) == kept - 1
            for shard in list(read_shards(tmp_path / "in.parquet", "text", parts.done))[:1]:
                n_bytes = write_part(parts.path, shard.number, shard.table)
                counts = BatchCounts(shard.table.num_rows)
                parts.add(Finished(shard.number, n_bytes, shard.is_last, counts))
    with RemoteParts.open(target, job, resume=True) as parts:
        for shard in read_shards(tmp_path / "in.parquet", "text", parts.done):
            n_bytes = write_part(parts.path, shard.number, shard.table)
            parts.add(Finished(shard.number, n_bytes, shard.is_last, BatchCounts(1)))
        parts.finish()
    assert not Remote(f"{target}.parts").list()
    if name == "out":
        Remote(target).download(Remote(target).list(), tmp_path / name)
        assert pq.read_table(tmp_path / name).num_rows == 10_000
    else:
        Remote(bucket).download([name], tmp_path)
        assert len((tmp_path / name).read_text().splitlines()) == 10_001
