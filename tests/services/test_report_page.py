"""The report page in a real browser: it works, keeps to itself and runs no text of a user."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from red_ray.config import dump_config, load_config
from red_ray.evaluation.report import write_report
from tests.services.chromium import (
    Browser,
    Page,
    assert_keeps_to_itself,
    assert_no_sideways_scroll,
    dump_dom,
)
from tests.services.conftest import Program
from tests.services.hostile import ATTACKS, HOSTILE, LONG
from tests.unit.evaluation.test_report import LABELS, change, details, iteration, make_run
from tests.unit.evaluation.test_report import scorecard as make_scorecard

SECTIONS = [
    *("headline", "learning", "judge", "confusions", "calibration", "thresholds"),
    *("escalation", "none", "experts", "labels", "timing", "configuration"),
]
HEADINGS = ("Label", "Expert", "Training rows", "Test rows", "Precision", "Recall", "F1")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """36 labels, 10 iterations, a simulated judge; its figures drawn from a seed."""
    rng = np.random.default_rng(7)
    judge, loop = {"spec": "simulated:0.93"}, {"acquisition": "entropy"}
    folder = Path(make_run(tmp_path / "shop-messages", judge=judge, loop=loop))
    lines = [json.dumps(iteration(number, rng)) for number in range(1, 11)]
    (folder / "iterations.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "scorecard.json").write_text(json.dumps(make_scorecard()), encoding="utf-8")
    (folder / "details.json").write_text(json.dumps(details(rng)), encoding="utf-8")
    return folder


@pytest.fixture
def odd_run(run: Path) -> Callable[[str], Path]:
    """The run with one text wherever a user's text can stand, as its name too."""

    def make(text: str) -> Path:
        found = json.loads((run / "details.json").read_text(encoding="utf-8"))
        pair = {"true": text, "predicted": text, "count": 99, "examples": [text]}
        labels = [row | {"label": f"{text}{n}"} for n, row in enumerate(found["labels"])]
        labels[0]["expert"] = text
        experts = [row | {"expert": text, "labels": [text, text]} for row in found["experts"]]
        change(run, "details.json", confusions=[pair], labels=labels, experts=experts)
        change(run, "details.json", judge_spec=f"simulated:{text}")
        overrides = {"text_column": text, "judge": {"spec": f"openai:{text}"}}
        config = dump_config(load_config(overrides=overrides))
        (run / "config.yaml").write_text(config, encoding="utf-8")
        return run.rename(run.with_name(text.replace("/", "\\")[:240]))

    return make


class Dumped(HTMLParser):
    """Ids of the elements in a dumped page, and the attributes of some."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.buttons = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.buttons += tag == "button"
        self.ids += [value for name, value in attrs if name == "id" and value]


async def column(page: Page, index: int) -> list[str]:
    """The texts of a column of the table of labels, from the top, hidden rows left out."""
    script = f"""[...document.querySelectorAll("#label-table tbody tr")]
        .filter((row) => row.checkVisibility()).map((row) => row.cells[{index}].innerText.trim())"""
    return list(await page.evaluate(script))


async def press(page: Page, heading: str) -> None:
    """Press a heading as a user does: with the mouse, in its middle."""
    place = await page.evaluate(f"""(async () => {{
        const buttons = [...document.querySelectorAll("#label-table thead button")];
        const button = buttons.find((one) => one.textContent === {heading!r});
        button.scrollIntoView({{block: "center", behavior: "instant"}});
        const frame = () => new Promise((done) => requestAnimationFrame(done));
        await frame();  // a click is aimed at what was last painted
        await frame();
        const box = button.getBoundingClientRect();
        return {{x: box.x + box.width / 2, y: box.y + box.height / 2}};
    }})()""")
    for kind in ("mousePressed", "mouseReleased"):
        click = {"type": kind, "button": "left", "clickCount": 1}
        await page.call("Input.dispatchMouseEvent", **click, **place)


async def enter(page: Page, text: str) -> None:
    """Replace what stands in the filter box, by the keyboard's way in."""
    box = 'document.getElementById("label-filter")'
    await page.evaluate(f"{box}.focus(), {box}.select()")
    if text:
        await page.call("Input.insertText", text=text)
        return
    for kind in ("keyDown", "keyUp"):
        key = {"type": kind, "key": "Delete", "code": "Delete", "windowsVirtualKeyCode": 46}
        await page.call("Input.dispatchKeyEvent", **key)


def test_the_dumped_page_is_whole_and_its_console_silent(
    program: Program, run: Path, tmp_path: Path
) -> None:
    done = dump_dom(program("chromium"), tmp_path / "profile", write_report(run))
    page = Dumped(done.stdout)
    assert done.returncode == 0
    assert [name for name in page.ids if name in SECTIONS] == SECTIONS
    assert page.buttons == 2 * len(HEADINGS)  # the script ran: both tables can be sorted
    assert "CONSOLE" not in done.stderr


async def test_every_section_is_seen_and_the_console_silent(browser: Browser, run: Path) -> None:
    page = await browser.open(write_report(run))
    shown = await page.evaluate("""[...document.querySelectorAll("main > section")].map(
        (part) => [part.id, part.checkVisibility(), part.querySelector("h2").offsetHeight > 0])""")
    assert shown == [[name, True, True] for name in SECTIONS]
    assert await page.evaluate('document.querySelectorAll("svg.chart").length') >= 5
    assert await page.complaints() == []
    await assert_keeps_to_itself(page)


async def test_every_link_of_the_page_leads_to_its_section(browser: Browser, run: Path) -> None:
    page = await browser.open(write_report(run))
    reached = await page.evaluate("""[...document.querySelectorAll("nav a")].map((link) => {
        link.click();
        return document.querySelector(":target").id;
    })""")
    assert reached == SECTIONS


async def test_a_heading_sorts_the_labels_both_ways(browser: Browser, run: Path) -> None:
    page = await browser.open(write_report(run))
    weakest_first = await column(page, 0)
    await press(page, "Label")
    assert await column(page, 0) == sorted(LABELS)
    await press(page, "Label")
    assert await column(page, 0) == sorted(LABELS, reverse=True)
    await press(page, "F1")
    assert await column(page, 0) == weakest_first
    sorted_by = "document.querySelectorAll('#label-table [aria-sort]')"
    assert await page.evaluate(f"[...{sorted_by}].map((head) => head.innerText)") == ["F1"]
    assert await page.complaints() == []


async def test_numbers_sort_as_numbers_and_gaps_stand_last(browser: Browser, run: Path) -> None:
    found = json.loads((run / "details.json").read_text(encoding="utf-8"))["labels"][:5]
    values = zip((9, 1200, 80, 101, 7), (0.5, None, 1.0, 0.09, None), strict=True)
    rows = [row | {"n_train": n, "f1": f1} for row, (n, f1) in zip(found, values, strict=True)]
    change(run, "details.json", labels=rows)
    page = await browser.open(write_report(run))
    await press(page, "Training rows")
    assert await column(page, 2) == ["7", "9", "80", "101", "1,200"]
    for gaps_last in (["9 %", "50 %", "100 %"], ["100 %", "50 %", "9 %"]):
        await press(page, "F1")
        shown = [text.replace("\u00a0", " ") for text in await column(page, 6)]
        assert shown == [*gaps_last, "–", "–"]


async def test_the_filter_leaves_the_labels_that_match(browser: Browser, run: Path) -> None:
    page = await browser.open(write_report(run))
    count = 'document.getElementById("label-count").textContent'
    everything = await column(page, 0)
    await enter(page, "  REFUND ")
    assert sorted(await column(page, 0)) == sorted(n for n in LABELS if n.startswith("refund"))
    assert await page.evaluate(count) == "4 of 36 labels"
    await press(page, "Label")
    assert await column(page, 0) == sorted(n for n in LABELS if n.startswith("refund"))
    await enter(page, "expert-02")
    assert set(await column(page, 1)) == {"expert-02"}
    await enter(page, "<no such label>")
    assert await column(page, 0) == []
    await enter(page, "")
    assert sorted(await column(page, 0)) == sorted(everything)
    assert await page.evaluate(count) == "36 of 36 labels"
    assert await page.complaints() == []


async def test_hostile_texts_do_not_run(browser: Browser, odd_run: Callable[[str], Path]) -> None:
    run = odd_run(HOSTILE)
    change(run, "details.json", stop_reason=HOSTILE, strategy=HOSTILE)
    change(run, "scorecard.json", versions={HOSTILE: HOSTILE}, timing_s={HOSTILE: 3.0})
    report = write_report(run)
    page = await browser.open(report)
    await press(page, "Label")  # what is moved or filtered stays text as well
    await enter(page, "window.ran")
    assert await page.evaluate("typeof window.ran") == "undefined"
    assert await page.evaluate("location.href") == report.as_uri()
    assert await page.evaluate("document.scripts.length") == 1
    assert await page.evaluate('document.querySelectorAll("img, iframe, link, object").length') == 0
    assert HOSTILE in await page.evaluate("document.body.textContent")
    assert await page.complaints() == []
    await assert_keeps_to_itself(page)


@pytest.mark.parametrize("attack", ATTACKS[:3])
async def test_a_text_that_slipped_by_would_not_run_either(
    attack: str, browser: Browser, run: Path
) -> None:
    """The page's policy is a second wall: here the first one is torn down."""
    report = write_report(run)
    html = report.read_text(encoding="utf-8")
    report.write_text(html.replace("<main>", f"<main>{attack}", 1), encoding="utf-8")
    page = await browser.open(report)
    assert await page.evaluate("typeof window.ran") == "undefined"
    assert "Content Security Policy" in str(await page.complaints())
    assert await page.evaluate('document.querySelectorAll("#label-table button").length') == 7


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("text", ["", LONG, HOSTILE], ids=["plain", "long", "hostile"])
async def test_a_phone_shows_it_without_sideways_scroll(
    width: int, text: str, browser: Browser, run: Path, odd_run: Callable[[str], Path]
) -> None:
    report = write_report(odd_run(text) if text else run)
    page = await browser.open(report, width=width)
    await assert_no_sideways_scroll(page, width)
    assert await page.complaints() == []


async def test_a_bare_run_works_as_well(browser: Browser, tmp_path: Path) -> None:
    """Neither a judge nor test rows: no table to sort, no box to filter."""
    page = await browser.open(write_report(make_run(tmp_path / "bare")), width=320)
    ids = await page.evaluate('[...document.querySelectorAll("section")].map((one) => one.id)')
    assert ids == SECTIONS
    await assert_no_sideways_scroll(page, 320)
    assert await page.complaints() == []
    await assert_keeps_to_itself(page)


BAD_PAGE = """<!doctype html><meta name=viewport content="width=device-width, initial-scale=1">
<div style="width: 900px">wide</div><img src=http://evil.example/a.png onerror="window.ran = 1">
<script>console.error("oh"); fetch("http://evil.example/b"); undefined.no</script>"""


async def test_the_browser_sees_what_a_bad_page_does(browser: Browser, tmp_path: Path) -> None:
    """Else the tests above would hold for any page."""
    bad = tmp_path / "bad.html"
    bad.write_text(BAD_PAGE, encoding="utf-8")
    page = await browser.open(bad, width=390)
    said: Any = str(await page.complaints())
    assert await page.evaluate("window.ran") == 1
    assert "oh" in said
    assert "TypeError" in said
    assert {"http://evil.example/a.png", "http://evil.example/b"} <= set(await page.requests())
    with pytest.raises(AssertionError):
        await assert_keeps_to_itself(page)
    with pytest.raises(AssertionError):
        await assert_no_sideways_scroll(page, 390)


def test_a_dumped_page_tells_what_its_console_said(program: Program, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(BAD_PAGE, encoding="utf-8")
    assert "CONSOLE" in dump_dom(program("chromium"), tmp_path / "profile", bad).stderr
