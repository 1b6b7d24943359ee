"""The page of a matrix in a real browser: it keeps to itself, and runs no text of its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.matrix import intervals
from benchmarks.matrix.report import write_report
from tests.services.chromium import Browser, assert_keeps_to_itself, assert_no_sideways_scroll
from tests.services.hostile import HOSTILE, LONG
from tests.unit.benchmarks.matrix.planted import Planted

COLUMNS = ("majority", "flat", "RED speed", "BERT", "Qwen zero", "Qwen LoRA")


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six columns of two seeds, one a hole; a text stands wherever a user's can."""
    monkeypatch.setattr(intervals, "N_RESAMPLES", 500)
    text = request.param
    made = Planted(tmp_path / "matrix", COLUMNS, seeds=(0, 1))
    for at, column in enumerate(COLUMNS[:-1]):
        for seed in (0, 1):
            made.cell(
                column,
                np.random.default_rng([at, seed]).random(150) < 0.5 + 0.08 * at,
                seed=seed,
                n=150,
                labels=(f"{text}no", f"{text}yes"),
                unreadable=range(3) if column == "Qwen zero" else (),
                history=[{"epoch": e, "train_loss": 1 / e} for e in (1, 2, 3)],
                notes=[text] if text else [],
                versions={"python": text or "3.11"},
            )
    for seed in (0, 1):
        made.hole("Qwen LoRA", "failed", f"no weights {text}", seed=seed)
    return made.folder


@pytest.mark.parametrize(
    "folder", ["", LONG, HOSTILE], ids=["plain", "long", "hostile"], indirect=True
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_shows_it_and_no_text_runs(
    scheme: str, browser: Browser, folder: Path
) -> None:
    report = write_report(folder)
    page = await browser.open(report, width=390)
    await page.scheme(scheme)
    assert await page.evaluate("typeof window.ran") == "undefined"
    assert await page.evaluate("location.href") == report.as_uri()
    assert await page.evaluate('document.querySelectorAll("img, iframe, link, object").length') == 0
    assert "no weights" in await page.evaluate("document.body.textContent")
    await assert_no_sideways_scroll(page, 390)
    assert await page.complaints() == []
    await assert_keeps_to_itself(page)
