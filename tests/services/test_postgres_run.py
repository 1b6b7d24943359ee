"""A whole run over a ledger on PostgreSQL, as a cluster would have it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from red_ray.judges import Ledger

N_QUESTIONS = 2 * 16


def test_a_run_keeps_its_verdicts_in_the_database_alone(
    postgres_place: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "red_ray.cli", "demo", "--json", "--out", str(run)]
    for setting in (
        f"judge.ledger={postgres_place}",
        "judge.gold_share=0",
        "loop.max_iterations=2",
        "loop.samples_per_iteration=16",
        "partition.subset_size=18",
    ):
        command += ["--set", setting]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    card = json.loads(first.stdout)
    assert card["judge"]["calls"] == N_QUESTIONS
    ledger = Ledger(postgres_place)
    assert sum(1 for _ in ledger.verdicts()) == N_QUESTIONS
    ledger.close()
    assert not (run / "ledger.sqlite").exists()
    again = subprocess.run([*command, "--overwrite"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    once_more = json.loads(again.stdout)
    assert once_more["bundle"] == card["bundle"]
    assert once_more["judge"]["from_ledger"] == N_QUESTIONS, "bought by the run before"
