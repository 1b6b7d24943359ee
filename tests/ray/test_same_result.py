"""The same rows, configuration and answers give the same bundle, wherever the workers are."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from red_ray.encoding import EmbeddingStore, open_encoder, resolve_spec
from red_ray.experts import ExpertSpec, FitRows
from red_ray.types import Progress
from tests.ray.runs import (
    N_LABELS,
    actor_names,
    bundle_id,
    config,
    in_process,
    on_actors,
    sample,
    wait_for_actors_to_end,
)

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
TUNED = {
    "expert": {"kind": "setfit"},
    "setfit": {"min_steps": 3, "max_steps": 3},
    "router": {"folds": 2},
    "loop": {"max_iterations": 1},
}
ELSEWHERE: frozenset[str] = frozenset()
"""Programs of Ray that may listen on other addresses: none without the dashboard and Serve."""


@dataclass
class Seen:
    """A run on actors, and what was to be seen of it from outside while it ran."""

    names: list[str] = field(default_factory=list)
    listening: list[tuple[str, str]] = field(default_factory=list)
    bundle: str = ""

    def look(self, step: Progress) -> None:
        if step.stage == "calibrate":
            self.names = actor_names()
            self.listening = listening()


def listening() -> list[tuple[str, str]]:
    """Address and program of all sockets on which this session's processes listen."""
    import psutil

    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            name = " ".join(child.cmdline())[:200]
            sockets = child.net_connections(kind="inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found += [(one.laddr.ip, name) for one in sockets if one.status == psutil.CONN_LISTEN]
    return found


@pytest.fixture(scope="module")
def seen(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    folder = tmp_path_factory.mktemp("seen")
    result = Seen()
    job = sample().job(encoder={"store": folder / "store"})
    trained = on_actors(job, folder / "ledger.sqlite", on_progress=result.look)
    result.bundle = bundle_id(trained, folder / "bundle")
    del trained
    wait_for_actors_to_end()
    return result


def test_threads_of_one_process_give_the_same_bundle(seen, tmp_path):
    """Defect 22. The store is a new one, so that every embedding is computed again."""
    job = sample().job(encoder={"store": tmp_path / "store"})
    trained = in_process(job, tmp_path / "ledger.sqlite", n_threads=3)
    assert bundle_id(trained, tmp_path / "bundle") == seen.bundle


def test_other_workers_and_a_half_filled_store_give_the_same_bundle(seen, tmp_path, monkeypatch):
    """Defects 13 and 22: experts share an actor, two encoders of one thread share the texts."""
    monkeypatch.setattr("red_ray.actors.packing.ENCODERS_PER_CPU", 1.0)
    store = tmp_path / "store"
    fill_half(store)
    job = sample().job(encoder={"store": store}, expert={"per_actor": 3})
    names: list[str] = []

    def look(step: Progress) -> None:
        if step.stage == "calibrate":
            names[:] = actor_names()

    trained = on_actors(job, tmp_path / "ledger.sqlite", on_progress=look)
    experts = [name for name in names if name.startswith("expert-")]
    assert len(experts) == 1
    assert " + expert-01: " in experts[0]
    assert [name for name in names if name.startswith("encoder")] == ["encoder-00", "encoder-01"]
    assert bundle_id(trained, tmp_path / "bundle") == seen.bundle


def fill_half(store: Path) -> None:
    """Every other text of the run, as the first run computed it."""
    home = Path(os.environ["RED_RAY_CACHE"])
    encoder = config(encoder={"store": home}).encoder
    texts = [*sample().train.texts, *sample().pool][::2]
    full = open_encoder(encoder)
    vectors = full.encode(texts)
    full.close()
    half = EmbeddingStore(store, resolve_spec(encoder))
    half.put(texts, vectors)


def test_actors_carry_the_names_of_what_they_do(seen):
    labels = sorted(set(sample().train.labels))
    assert f"gate: {N_LABELS} labels" in seen.names
    for name in ("coordinator", "router", "encoder-00", "validator-pool: simulated:0.9"):
        assert name in seen.names
    experts = [name for name in seen.names if name.startswith("expert-")]
    served = [label for name in experts for label in name.split(": ")[1].split(", ")]
    assert sorted(served) == labels


def test_by_default_every_expert_has_an_actor_of_its_own(seen):
    experts = [name for name in seen.names if name.startswith("expert-")]
    assert [name[:10] for name in experts] == ["expert-00:", "expert-01:"]


def test_everything_listens_on_loopback_alone(seen):
    assert len(seen.listening) >= 5  # head, raylet, workers: else this looks in the wrong place
    outside = {
        (address, name)
        for address, name in seen.listening
        if address not in LOOPBACK and not any(part in name for part in ELSEWHERE)
    }
    assert not outside


def test_only_the_owner_can_read_the_token():
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert len(token.read_text()) == 64


async def test_the_object_store_holds_the_vectors_once(cluster, monkeypatch):
    """However many partitions are tried over them."""
    import ray

    from red_ray.actors.fleet import RayFleet

    stored, put = [], ray.put
    monkeypatch.setattr(ray, "put", lambda value: stored.append(value) or put(value))
    fleet, vectors = RayFleet(config()), np.eye(12, 384, dtype=np.float32)
    subsets = ((0, 1), (2, 3))
    none, never = np.zeros(0, np.int64), np.full(4, -1)
    rows = FitRows(np.arange(4), np.arange(4), noise=none, refused=none, folds=never)
    specs = [ExpertSpec(f"expert: {one}", one, "logistic_regression", 0) for one in subsets]
    for _ in range(2):
        crew = await fleet.open(config(), vectors, ["a text"] * 12, subsets, specs, None)
        await crew.experts[0].fit(rows)
    scores = await crew.experts[0].score(np.arange(12))
    fleet.end()
    assert scores.shape == (12, 3)
    assert len(stored) == 1


def test_fine_tuned_experts_give_the_same_bundle(cluster, tmp_path):
    """Fine-tunings in processes of their own, and as threads of one."""

    def trained(train, name):
        store = tmp_path / name
        job = sample().job(encoder={"store": store}, **TUNED)
        return bundle_id(train(job, tmp_path / f"{name}.sqlite"), tmp_path / f"bundle-{name}")

    assert trained(on_actors, "actors") == trained(in_process, "threads")
