"""`red-ray modes`: what each sets, and how to get the encoders that are not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from red_ray.cli.app import app
from red_ray.config import PRESETS


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "132")


def test_every_key_that_a_mode_sets_is_shown() -> None:
    told = CliRunner().invoke(app, ["modes"])
    assert told.exit_code == 0
    for sets in PRESETS.values():
        for section, keys in sets.items():
            assert all(f"{section}.{key}" in told.output for key in keys)
    assert "hf download sentence-transformers/all-mpnet-base-v2" in told.output
    assert "hf download Qwen/Qwen3-Embedding-0.6B" in told.output


def test_as_json_it_says_which_encoders_are_here() -> None:
    told = CliRunner().invoke(app, ["modes", "--json"])
    modes = json.loads(told.stdout)
    assert {name: mode["encoder_here"] for name, mode in modes.items()} == {
        "speed": True,  # the packaged weights
        "balanced": False,
        "accuracy": False,
    }
    assert modes["accuracy"]["sets"] == PRESETS["accuracy"]
