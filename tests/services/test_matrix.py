"""The matrix's command: killed in the middle and gone on with, and the seed's cells with models
that the tests build."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.matrix.config import CONFIGS
from benchmarks.matrix.tiny import tiny_decoder, tiny_encoder

ROOT = Path(__file__).parents[2]
LIMIT_S = 600.0
SEEDS = 2


def environment(folder):
    own = {
        "RED_RAY_MATRIX_USES": str(folder / "uses.jsonl"),
        "RED_RAY_CACHE": str(folder / "cache"),
    }
    return {**os.environ, **own}


def matrix(folder, *arguments):
    command = [sys.executable, "-m", "benchmarks.matrix", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process):
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    return json.loads(out)


def tables(folder, header=("text", "label"), n=24):
    folder.mkdir(parents=True)
    for name, start in (("train.csv", 0), ("test.csv", 1000)):
        with (folder / name).open("w", newline="") as file:
            texts = [f"{'good' if i % 2 else 'bad'} film number {start + i}" for i in range(n)]
            pairs = [[text] * (len(header) - 1) + ["yn"[i % 2]] for i, text in enumerate(texts)]
            csv.writer(file).writerows([header, *pairs])
    return str(folder)


def stamps(out):
    """When each cell ended, by the name of its folder."""
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/cell.json")}
    return {name: stated["ended"] for name, stated in found.items() if not name.startswith(".")}


@pytest.fixture
def small(tmp_path):
    content = {
        "name": "small",
        "seeds": [*range(SEEDS)],
        "tasks": {"films": {"path": tables(tmp_path / "films")}},
        "columns": [
            {"name": "majority", "method": "majority"},
            {"name": "prior", "method": "prior"},
            {"name": "too slow", "method": "flat", "time_s": 0.1},
        ],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_killed_in_the_middle_no_cell_is_run_twice_and_none_is_missing(small, tmp_path):
    out = tmp_path / "out"
    arguments = ("run", "--config", small, "--out", out, "--json")
    process = matrix(tmp_path, *arguments)
    end = time.monotonic() + LIMIT_S
    while len(stamps(out)) < SEEDS:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = stamps(out)
    assert len(before) < 3 * SEEDS
    told = ended(matrix(tmp_path, *arguments))
    assert told["run"] == 3 * SEEDS - len(before)
    assert (told["done"], told["holes"]) == (2 * SEEDS, SEEDS)
    after = stamps(out)
    assert len(after) == 3 * SEEDS
    assert {name: after[name] for name in before} == before
    assert ended(matrix(tmp_path, *arguments))["run"] == 0
    page = ended(matrix(tmp_path, "report", out, "--json"))["report"]
    assert "took longer than 0.1 s" in Path(page).read_text()


def test_the_seeds_thirty_run_with_small_models_of_the_tests(tmp_path):
    content = yaml.safe_load((CONFIGS / "seed30.yaml").read_text())
    words = [f"{word} film number" for word in ("good", "bad")]
    encoder, decoder = tiny_encoder(tmp_path / "e", words), tiny_decoder(tmp_path / "d", words)
    content["seeds"] = [0]
    for name, task in content["tasks"].items():
        header = (*task.get("text", ["text"]), task.get("label", "label"))
        content["tasks"][name] = {
            "path": tables(tmp_path / name, header),
            "text": [*header[:-1]],
            "label": header[-1],
        }
    for column in content["columns"]:
        column["model"] = str(encoder if column["method"] == "fine_tune" else decoder)
        column |= {"num_gpus": 0, "num_cpus": 1} | (
            {"epochs": 1} if column["method"] in ("fine_tune", "lora") else {}
        )
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    told = ended(matrix(tmp_path, "run", "--config", path, "--out", out, "--json"))
    assert told == {
        "folder": str(out),
        "run": 30,
        "done": 30,
        "holes": 0,
        "not_run": 0,
        "cells": 30,
    }
    page = Path(ended(matrix(tmp_path, "report", out, "--json"))["report"])
    assert page.exists()
