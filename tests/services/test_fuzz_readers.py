"""Damaged tables: a few thousand of them, the same each time; tests/soak has the long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services import fuzzing
from tests.services.fuzzing import KINDS, damaged, fuzz, valid

N_CASES = 800  # of each kind: one to three seconds
LIMIT_S = 4.0  # where they take longer, there are fewer


@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_a_table_or_in_one_line(kind: str, tmp_path: Path) -> None:
    found = fuzz(kind, tmp_path, first_seed=0, n_cases=N_CASES, limit_s=LIMIT_S)
    # Else the damage is too little, or too much, to test anything.
    assert found.n_tables >= 0.02 * found.n_cases
    assert found.n_refused >= 0.2 * found.n_cases
    assert found.n_cases >= 100


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_was_whole(kind: str, tmp_path: Path) -> None:
    for number, data in enumerate(valid(kind)):
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(data)
        assert fuzzing.check(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_damage_again(kind: str) -> None:
    first = [damaged(kind, seed) for seed in range(20)]
    valid.cache_clear()
    assert [damaged(kind, seed) for seed in range(20)] == first
    assert len(set(first)) >= 19


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raise ValueError('a reader let this through')", "a reader let this through"),
        ("raise DataError('two\\nlines')", "two"),
        ("time.sleep(60)", "Timeout"),
        ("os.abort()", "Fatal Python error: Aborted"),
        ("return bytearray(1 << 40)", "MemoryError"),
    ],
)
def test_a_finding_is_told_with_its_seed(
    fault: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken reader in place of ours: whatever it does, the next session can do it again."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "from red_ray.data import tables\n"
        "from red_ray.errors import DataError\n"
        f"def broken(*args, **options): {fault}\n"
        "tables.read_table = broken\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(AssertionError, match=r"csv 7: exit .*fuzzing csv 7") as caught:
        fuzz("csv", tmp_path, first_seed=7, n_cases=1, limit_s=1.0, case_s=1.0)
    assert told in str(caught.value)
