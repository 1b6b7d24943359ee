"""Damaged tables for minutes; the first seed is new each time, and printed.

RED_RAY_SOAK_MINUTES: of all formats together, 10 by default.
RED_RAY_SOAK_SEED: the first seed, to do a run again.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.services.fuzzing import KINDS, fuzz

MANY = 10**9  # the time is what ends it


@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_a_table_or_in_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_s = 60 * float(os.environ.get("RED_RAY_SOAK_MINUTES", "10")) / len(KINDS)
    first_seed = int(os.environ.get("RED_RAY_SOAK_SEED") or time.time_ns() // 10**9)
    with capsys.disabled():
        print(f"\n{kind}: {limit_s:.0f} s from seed {first_seed}", end="", flush=True)
        found = fuzz(kind, tmp_path, first_seed=first_seed, n_cases=MANY, limit_s=limit_s)
        print(f": {found.n_tables} tables, {found.n_refused} refused ", end="")
    assert found.n_tables
    assert found.n_refused
