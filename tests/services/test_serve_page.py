"""The endpoint's page in a real browser: what people do with it, and what may befall them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from red_ray.bundle import save_bundle
from red_ray.calibration import with_goal
from red_ray.config import Goal
from red_ray.judges import Ledger
from red_ray.model import RedModel
from red_ray.run_folder import RunFolder
from serve.batcher import OverloadedError
from serve.schemas import ClassifyAnswer, ClassifyRequest, Feedback, Stats
from serve.service import Service
from serve.settings import JudgeTier, Limits, ServeSettings
from tests.services.chromium import Browser, Page
from tests.services.conftest import find_program
from tests.services.endpoint import Endpoint, make_run, truth_table
from tests.services.hostile import HOSTILE, LONG
from tests.unit.training.fakes import Corpus, FakeEncoder, make_corpus, train

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "a-token-of-this-test"
VIEWS = ("classify", "review", "model", "live")
OFF = JudgeTier(spec="off")
NOWHERE = "zebra quux flurb"

Started = Callable[..., Awaitable[Endpoint]]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus()


@pytest.fixture(scope="module")
def model(corpus: Corpus) -> RedModel:
    """Sends some texts to the judge and answers others alone."""
    trained = asyncio.run(train(replace(corpus.job(), pool=())))
    return with_goal(trained.model, Goal(escalate_at_most=0.5), 0.9, None, FakeEncoder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """One for all tests here: to start one takes longest."""
    profile = tmp_path_factory.mktemp("chromium") / "profile"
    async with Browser.start(find_program("chromium"), profile) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def browser(chromium: Browser) -> AsyncIterator[Browser]:
    """Its tabs are those of this test alone: left open, each would go on asking an endpoint."""
    yield chromium
    await chromium.close_pages()


@pytest_asyncio.fixture(loop_scope="module")
async def started(model: RedModel, tmp_path: Path) -> AsyncIterator[Started]:
    """Starts an endpoint; it is gone when the test ends."""
    running: list[Endpoint] = []

    async def start(model: RedModel = model, **options: Any) -> Endpoint:
        keys = ("tokens", "change")
        more = {key: options.pop(key) for key in keys if key in options}
        run = make_run(tmp_path / "tickets", model)
        settings = ServeSettings(run=str(run), **{"judge": OFF, "watch_s": 0.1} | options)
        running.append(Endpoint(settings, **more))
        await running[-1].start()
        return running[-1]

    yield start
    for endpoint in running:
        await endpoint.stop()


@pytest.fixture
def simulated(corpus: Corpus, tmp_path: Path) -> JudgeTier:
    """A judge that is always right about the test texts."""
    return JudgeTier(spec="simulated:1", truth=str(truth_table(tmp_path / "truth.csv", corpus)))


async def opened(browser: Browser, endpoint: Endpoint, view: str = "classify") -> Page:
    page = await browser.open(f"{endpoint.url}#/{view}")
    await page.until("document.querySelector('#answering .copy')")
    return page


async def enter(page: Page, text: str) -> None:
    """Replace what stands in the field for texts, by the keyboard's way in."""
    await page.evaluate("texts.focus(), texts.select()")
    await page.type(text)


async def classify(page: Page, *texts: str) -> None:
    await enter(page, "\n".join(texts))
    await page.press("Enter", ctrl=True)
    await page.until(f"document.querySelectorAll('.result').length === {len(texts)}")


async def shown(page: Page, selector: str) -> list[str]:
    """The visible texts of some elements, white space collapsed."""
    return list(
        await page.evaluate(f"""[...document.querySelectorAll({selector!r})]
            .filter((one) => one.checkVisibility())
            .map((one) => one.innerText.replace(/\\s+/g, " ").trim())""")
    )


async def click(page: Page, selector: str) -> None:
    await page.evaluate(f"document.querySelector({selector!r}).click()")


def percent(share: float) -> str:
    """As the page says it: what is there is never nothing."""
    return f"{100 * share:.1f} %" if share >= 0.0005 else "< 0.1 %"


async def serious(page: Page) -> list[str]:
    """Complaints, but that the endpoint refused something: Chromium tells that as well."""
    return [one for one in await page.complaints() if "Failed to load resource" not in one]


async def assert_keeps_to_itself(page: Page, endpoint: Endpoint) -> None:
    requests = await page.requests()
    assert requests
    assert [url for url in requests if not url.startswith((endpoint.url, "data:"))] == []


def people_said(endpoint: Endpoint, *texts: str) -> list[str | None]:
    """What the ledger keeps of people about some texts; text by text, none where nothing."""
    ledger = Ledger(RunFolder(Path(endpoint.settings.run)).ledger)
    try:
        found = ledger.humans_of(texts)
    finally:
        ledger.close()
    return [found.get(text, "nothing") for text in texts]


FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Drawings follow a new width in the next frame."""

CONTRAST = """(() => {
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const over = (top, under) => {
        const share = top[3] / 255;
        return [0, 1, 2].map((i) => top[i] * share + under[i] * (1 - share)).concat(255);
    };
    const ground = (node) => {
        if (!node) return rgba(getComputedStyle(document.body).backgroundColor);
        const own = rgba(getComputedStyle(node).backgroundColor);
        return own[3] === 255 ? own : over(own, ground(node.parentElement));
    };
    const light = (colour) => {
        const [r, g, b] = colour.slice(0, 3).map((one) => one / 255)
            .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = [];
    for (const node of document.querySelectorAll("body *")) {
        const words = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
        if (!words || !node.checkVisibility() || node.closest(".sr, option, svg")) continue;
        const style = getComputedStyle(node);
        const under = ground(node);
        const [a, b] = [light(over(rgba(style.color), under)), light(under)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const large = parseFloat(style.fontSize) >= 24;
        if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} ${node.innerText}`);
    }
    return found;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_view_is_readable_silent_and_keeps_to_itself(
    scheme: str, browser: Browser, started: Started, simulated: JudgeTier, corpus: Corpus
) -> None:
    endpoint = await started(judge=simulated)
    page = await opened(browser, endpoint)
    await page.scheme(scheme)
    await classify(page, *corpus.test[:12], NOWHERE)
    await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    await page.until("document.querySelector('.steps')")
    for view in VIEWS:
        await page.evaluate(f"location.hash = '#/{view}'")
        await page.until(f"!document.getElementById('{view}').hidden")
        await page.until("!document.querySelector('.view:not([hidden]) .status:not(:empty)')")
        assert await page.evaluate(CONTRAST) == []
    is_dark = "getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 26)'"
    assert await page.evaluate(is_dark) is (scheme == "dark")
    assert await page.complaints() == []
    await assert_keeps_to_itself(page, endpoint)


async def test_a_phone_shows_every_view_without_sideways_scroll(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    names = (LONG, *model.labels[1:])
    endpoint = await started(replace(model, labels=names, descriptions=(LONG,) * len(names)))
    page = await browser.open(endpoint.url, width=360)
    await page.until("document.querySelector('#answering .copy')")
    await classify(page, *corpus.test[:12], LONG)
    await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    await page.until("document.querySelector('.steps')")
    await page.evaluate("fetch('v1/stats').then((answer) => answer.json())")
    for view in VIEWS:
        await page.evaluate(f"location.hash = '#/{view}'")
        await page.until("!document.querySelector('.view:not([hidden]) .status:not(:empty)')")
        for width in (320, 360):
            await page.width(width)
            await page.evaluate(FRAMES)
            found = await page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
            assert found == [width, width], view


async def test_links_and_back_lead_from_view_to_view(browser: Browser, started: Started) -> None:
    page = await opened(browser, await started(), "model")
    open_views = "[...document.querySelectorAll('.view')].filter((v) => !v.hidden).map((v) => v.id)"
    assert await page.evaluate(open_views) == ["model"]
    await click(page, "nav a[href='#/live']")
    await page.until("!live.hidden")
    assert await page.evaluate(open_views) == ["live"]
    assert await page.evaluate("document.title") == "Live · red_ray"
    assert await page.evaluate("document.activeElement.id") == "live-title"
    assert await shown(page, "nav [aria-current=page]") == ["Live"]
    await page.evaluate("history.back()")
    await page.until("!document.getElementById('model').hidden")
    assert await page.evaluate(open_views) == ["model"]


async def test_everything_that_can_be_used_has_a_name_and_a_visible_focus(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await opened(browser, await started())
    await classify(page, *corpus.test[:2])
    await page.evaluate("document.querySelector('.skip').focus()")
    seen: list[str] = []
    for _ in range(40):
        found = await page.evaluate("""(() => {
            const one = document.activeElement;
            if (one === document.body) return null;
            const drawn = one.type === "radio" ? one.nextSibling : one;
            const label = one.labels?.[0]?.innerText;
            const name = (one.getAttribute("aria-label") ?? label ?? one.innerText).trim();
            return [name, getComputedStyle(drawn).outlineStyle, one.id || one.className];
        })()""")
        if found is None:
            break
        name, outline, where = found
        assert name, where
        assert outline != "none", where
        seen.append(name)
        await page.press("Tab")
    assert {"Skip to the content", "Classify", "Right", "Wrong", "Save as CSV"} <= set(seen)


async def test_typed_texts_get_the_decisions_of_the_model(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    page = await opened(browser, await started())
    texts = [*corpus.test[:8], NOWHERE]
    await classify(page, *texts)
    expected = replace(model, encoder=FakeEncoder()).predict(texts)
    names = {"accept": "Accepted", "none": "None fits", "escalate": "Escalated"}
    assert {one.decision for one in expected} >= {"accept", "escalate"}
    found = await shown(page, ".result .pill")
    assert found == [names[one.decision] for one in expected]
    guesses = [one.label or "none of the labels" for one in expected if one.decision != "none"]
    assert await shown(page, ".verdict-label") == guesses
    first = await shown(page, ".result:first-child .bar")
    others = [(one.label, one.confidence) for one in expected[0].alternatives]
    pairs = [(expected[0].label, expected[0].confidence), *others]
    assert first == [f"{label} {percent(share)}" for label, share in pairs]
    assert await shown(page, ".result-text p") == texts


async def test_results_can_be_left_by_decision(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await opened(browser, await started())
    await classify(page, *corpus.test[:12])
    await click(page, ".filter[data-kind=escalate]")
    left = await shown(page, ".result .pill")
    assert left
    assert set(left) == {"Escalated"}
    await click(page, ".filter[data-kind=all]")
    assert len(await shown(page, ".result")) == 12


@pytest.mark.parametrize("has_judge", [True, False])
async def test_always_is_to_be_had_only_where_there_is_a_judge(
    has_judge: bool, browser: Browser, started: Started, simulated: JudgeTier
) -> None:
    """Without one the endpoint refuses it."""
    endpoint = await started(judge=simulated) if has_judge else await started()
    page = await opened(browser, endpoint)
    hint = "The model alone" if has_judge else "This endpoint has no judge"
    await click(page, "input[name=escalate][value=never]")
    await page.until(f"document.getElementById('escalate-hint').innerText.includes({hint!r})")
    disabled = "document.querySelector('input[value=always]').disabled"
    assert await page.evaluate(disabled) is not has_judge


async def test_an_opened_result_says_why(
    browser: Browser, started: Started, simulated: JudgeTier, model: RedModel, corpus: Corpus
) -> None:
    page = await opened(browser, await started(judge=simulated))
    [text] = unsure(model, corpus, 1)
    await classify(page, text)
    await page.evaluate("document.querySelector('.why summary').click()")
    await page.until("document.querySelector('.steps')")
    assert await shown(page, ".why h4") == [
        "Thresholds",
        "Candidates and what speaks for them",
        "Experts that spoke",
        "Nearest labelled texts",
        "The gate: one flat model over all labels",
        "The judge’s question and answer",
        "Time and price",
    ]
    assert "simulated" in " ".join(await shown(page, ".because"))
    assert await shown(page, ".why .judge-name") == ["simulated:1 simulated"]
    answered = await shown(page, ".options-asked .chosen .label")
    assert answered == [corpus.test_labels[corpus.test.index(text)]]
    assert await shown(page, ".verdict-label") == answered
    near = await shown(page, ".near li p:first-child")
    assert len(near) == 5
    assert set(near) <= set(model.example_texts)
    steps = await shown(page, ".step-name")
    assert steps == [
        *("Waiting for a batch", "Encoding", "Experts and neighbours", "Deciding", "Explaining"),
        "Judge",
    ]


async def test_right_and_wrong_go_into_the_ledger(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint)
    decisions = replace(model, encoder=FakeEncoder()).predict(corpus.test)
    pairs = zip(corpus.test, decisions, strict=True)
    right, wrong = [(text, one.label) for text, one in pairs if one.decision == "accept"][:2]
    await classify(page, right[0], wrong[0])
    await click(page, ".result:first-child .yes")
    await page.until("document.querySelector('.result:first-child .kept')")
    await click(page, ".result:last-child .no")
    other = next(name for name in model.labels if name != wrong[1])
    await page.type(other)
    await page.press("Enter")
    await page.until("document.querySelector('.result:last-child .kept')")
    assert people_said(endpoint, right[0], wrong[0]) == [right[1], other]


async def wait_in_queue(endpoint: Endpoint, page: Page, texts: list[str]) -> None:
    """Have the endpoint decide on texts that nobody answers, so that they wait for a person."""
    await classify(page, *texts)
    await page.evaluate("fetch('v1/stats').then((answer) => answer.json())")  # it reports before


def unsure(model: RedModel, corpus: Corpus, n: int) -> list[str]:
    decisions = replace(model, encoder=FakeEncoder()).predict(corpus.test)
    pairs = zip(corpus.test, decisions, strict=True)
    found = [text for text, one in pairs if one.decision == "escalate"][:n]
    assert len(found) == n
    return found


async def test_the_queue_is_answered_by_keyboard(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint)
    await wait_in_queue(endpoint, page, unsure(model, corpus, 4))
    await page.evaluate("location.hash = '#/review'")
    await page.until("document.querySelector('.choice')")
    texts: list[str] = []

    async def asked() -> str:
        said = (await shown(page, "#review-text"))[0]
        texts.append(said)
        return said

    async def after(*keys: str) -> str:
        before = await shown(page, "#review-text")
        await page.press(*keys)
        await page.until(f"document.querySelector('#review-text')?.innerText !== {before[0]!r}")
        return await asked()

    first = await asked()
    second_choice = (await shown(page, ".choice .label"))[1]
    second = await after("2")
    assert await after("s") != second
    third = texts[-1]
    fourth = await after("n")
    await page.press("/")
    await page.type(model.labels[-1])
    await page.press("Enter")
    await page.until("document.querySelector('.finished')")
    assert "1 skipped" in await shown(page, "#review-left span")
    assert people_said(endpoint, first, second, third, fourth) == [
        second_choice,
        "nothing",
        None,
        model.labels[-1],
    ]
    await page.press("z")  # back to the fourth, and then on again
    await page.until("document.querySelector('.again')")
    assert await shown(page, "#review-text") == [fourth]
    assert model.labels[-1] in (await shown(page, ".again"))[0]
    await page.press("0")
    await page.until("document.querySelector('.finished .primary')")
    await click(page, ".finished .primary")
    await page.until("document.querySelector('.choice')")
    assert await shown(page, "#review-text") == [second]
    await page.press("1")
    await page.until("document.querySelector('.finished')")
    assert await shown(page, ".finished h2") == ["All done"]
    assert people_said(endpoint, fourth)[0] is None
    assert people_said(endpoint, second)[0] in model.labels
    assert await page.complaints() == []


async def test_an_answer_that_is_refused_brings_its_text_back(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint)
    await wait_in_queue(endpoint, page, unsure(model, corpus, 2))
    await page.evaluate("location.hash = '#/review'")
    await page.until("document.querySelector('.choice')")
    text = await shown(page, "#review-text")
    await page.evaluate("""(() => {
        const sent = window.fetch;
        window.fetch = (address, options) => sent(address, options?.method === "POST"
            ? {...options, body: JSON.stringify({answers: [{text: "t", label: "unheard of"}]})}
            : options);
    })()""")
    await page.press("1")
    await page.until("document.querySelector('#review-sent').textContent.startsWith('Not kept')")
    assert await shown(page, "#review-text") != text  # it does not jump under who types
    assert await shown(page, "#queue-count") == ["2"]
    await page.press("s")
    assert await shown(page, "#review-text") == text
    assert "no label 'unheard of'" in (await shown(page, ".review-card .problem"))[0]
    assert people_said(endpoint, *text) == ["nothing"]


async def test_keys_can_be_turned_off(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint)
    await wait_in_queue(endpoint, page, unsure(model, corpus, 2))
    await page.evaluate("location.hash = '#/review'")
    await page.until("document.querySelector('.choice')")
    text = await shown(page, "#review-text")
    await click(page, ".legend input")
    await page.press("1", "s", "n", "z")
    assert await shown(page, "#review-text") == text
    assert people_said(endpoint, *text) == ["nothing"]
    await click(page, ".legend input")
    await page.press("s")
    await page.until(f"document.querySelector('#review-text').innerText !== {text[0]!r}")


async def test_bad_input_is_told_before_anything_is_sent(
    browser: Browser, started: Started
) -> None:
    endpoint = await started(limits=Limits(texts_per_call=3, chars_per_text=20, body_bytes=2000))
    page = await opened(browser, endpoint)
    problem = "#texts-problem"

    async def told(text: str) -> str:
        await enter(page, text) if text else None
        await page.press("Enter", ctrl=True)
        assert await page.evaluate("document.activeElement.id") == "texts"
        return (await shown(page, problem))[0]

    await page.evaluate("texts.focus()")
    assert await told("") == "There is no text yet."
    assert "4 texts; one call takes at most 3" in await told("a\nb\nc\nd")
    assert "At most 20 characters a text: line 2 has 21" in await told("a\n" + "b" * 21)
    await enter(page, "a\n\n😀" + "b" * 19)
    assert await shown(page, problem) == []  # an astral character is one
    await page.evaluate("document.getElementById('top-k').value = '0'")
    await page.press("Enter", ctrl=True)
    assert await shown(page, "#top-k-problem") == ["A whole number from 1 to 100."]
    assert await page.evaluate("document.activeElement.id") == "top-k"
    assert not [url for url in await page.requests() if url.endswith("/v1/classify")]


async def test_what_only_the_endpoint_knows_is_told_in_its_words(
    browser: Browser, started: Started
) -> None:
    page = await opened(browser, await started())
    # White space to the endpoint, not to the browser.
    await page.evaluate("texts.value = String.fromCharCode(31), texts.focus()")
    await page.press("Enter", ctrl=True)
    await page.until("document.getElementById('classify-problem').textContent")
    [told] = await shown(page, "#classify-problem")
    assert told.startswith("texts[0] is empty; give a text (request ")
    assert await serious(page) == []


async def test_a_token_is_asked_for_once_and_kept_in_this_tab(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await browser.open((await started(tokens=(TOKEN,))).url)
    is_open = "document.getElementById('token-dialog').open"
    await page.until(is_open)
    await page.type("a-token-that-is-wrong")
    await page.press("Enter")
    refused = "document.getElementById('token-detail').textContent.includes('not taken')"
    await page.until(f"{is_open} && {refused}")
    await page.type(TOKEN)
    await page.press("Enter")
    await page.until("document.querySelector('#answering .copy')")
    await classify(page, corpus.test[0])
    assert await page.evaluate(is_open) is False
    stored = await page.evaluate("[Object.values(sessionStorage), Object.values(localStorage)]")
    assert stored == [[TOKEN], []]
    assert await page.evaluate("document.cookie") == ""
    assert TOKEN not in await page.evaluate("location.href + document.body.innerHTML")
    page.loaded.clear()
    await page.call("Page.reload")
    await page.loaded.wait()
    await page.until("document.querySelector('#answering .copy')")
    assert await page.evaluate(is_open) is False


async def test_without_a_token_the_page_says_so_and_asks_again(
    browser: Browser, started: Started
) -> None:
    page = await browser.open((await started(tokens=(TOKEN,))).url + "#/model")
    await page.until("document.getElementById('token-dialog').open")
    await page.press("Escape")
    await page.until("document.querySelector('#model .notice')")
    assert "token" in (await shown(page, "#model .notice"))[0]
    await click(page, "#model .notice button")
    await page.until("document.getElementById('token-dialog').open")
    await page.type(TOKEN)
    await page.press("Enter")
    await page.until("document.querySelector('#model .what')")


def refuse(times: int, retry_after_s: int) -> Callable[[Service], None]:
    """The service's first calls are too many for it."""
    left = times

    def change(service: Service) -> None:
        answer = service.classify

        async def classify(asked: ClassifyRequest) -> ClassifyAnswer:
            nonlocal left
            left -= 1
            if left >= 0:
                raise OverloadedError(retry_after_s)
            return await answer(asked)

        service.classify = classify  # type: ignore[method-assign]

    return change


async def test_an_overloaded_endpoint_is_asked_again_when_it_says(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await opened(browser, await started(change=refuse(2, 1)))
    await enter(page, corpus.test[0])
    await page.press("Enter", ctrl=True)
    status = "document.getElementById('classify-status').textContent"
    await page.until(f"{status}.includes('Trying again in 1 s, 1 of 4')")
    await page.until(f"{status}.includes('Trying again in 1 s, 2 of 4')")
    await page.until("document.querySelector('.result')")
    assert await page.evaluate(status) == ""
    assert await serious(page) == []


async def test_a_wait_that_is_too_long_is_told_and_nothing_is_lost(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await opened(browser, await started(change=refuse(1, 90)))
    await enter(page, corpus.test[0])
    await page.press("Enter", ctrl=True)
    await page.until("document.getElementById('classify-problem').textContent")
    assert "too many texts wait already" in (await shown(page, "#classify-problem"))[0]
    await page.press("Enter", ctrl=True)
    await page.until("document.querySelector('.result')")
    assert await shown(page, "#classify-problem") == []


async def test_a_call_that_waits_can_be_cancelled(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await opened(browser, await started(change=refuse(1, 30)))
    await enter(page, corpus.test[0])
    await page.press("Enter", ctrl=True)
    await page.until("document.getElementById('classify-status').textContent")
    await click(page, "#cancel")
    await page.until("document.getElementById('cancel').hidden")
    assert await shown(page, "#classify-status, #classify-problem") == []
    assert await page.evaluate("texts.value") == corpus.test[0]


async def test_the_page_waits_for_an_endpoint_that_is_away(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint)
    await endpoint.stop()
    await enter(page, corpus.test[0])
    await page.press("Enter", ctrl=True)
    await page.until("!banner.hidden")
    assert "cannot be reached" in (await shown(page, "#banner"))[0]
    assert await page.evaluate("texts.value") == corpus.test[0]
    await endpoint.start()
    await page.until("document.querySelector('.result')")
    assert await page.evaluate("banner.hidden") is True
    assert await serious(page) == []


async def test_answers_wait_for_the_endpoint_too(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint)
    await wait_in_queue(endpoint, page, unsure(model, corpus, 2))
    await page.evaluate("location.hash = '#/review'")
    await page.until("document.querySelector('.choice')")
    texts = await shown(page, "#review-text")
    await endpoint.stop()
    await page.press("0")
    await page.until("!banner.hidden")
    await page.until(f"document.querySelector('#review-text').innerText !== {texts[0]!r}")
    texts += await shown(page, "#review-text")
    await page.press("n")
    await endpoint.start()
    await page.until("document.querySelector('.finished')")
    assert people_said(endpoint, *texts) == [None, None]


PASTE = """((text) => {{
    const data = new DataTransfer();
    data.setData("text/plain", text);
    texts.focus();
    const how = {{clipboardData: data, bubbles: true, cancelable: true}};
    const event = new ClipboardEvent("paste", how);
    if (texts.dispatchEvent(event)) document.execCommand("insertText", false, text);
    return texts.value.split("\\n");
}})({0!r})"""


PASTES = {
    "one\ntwo, and more": ["one", "two, and more"],
    'text\n"one, two"\n"she said ""no"""\nthree': ["one, two", 'she said "no"', "three"],
    '"over\ntwo lines"\r\nplain\r\n': ["over two lines", "plain"],
    "7\ta long text\tx\n8\tanother one, too\ty": ["a long text", "another one, too"],
    'id,text\n1,hello there\n2,"bye, then"': ["hello there", "bye, then"],
    '"Stop", she said.': ['"Stop", she said.'],
    "Dear all, hello\nbye, bye": ["Dear all, hello", "bye, bye"],
}


async def test_a_pasted_column_becomes_its_texts(browser: Browser, started: Started) -> None:
    page = await opened(browser, await started())
    for pasted, lines in PASTES.items():
        await page.evaluate("texts.value = ''")
        assert await page.evaluate(PASTE.format(pasted)) == lines


async def test_a_paste_can_be_had_as_it_was(browser: Browser, started: Started) -> None:
    page = await opened(browser, await started())
    await enter(page, "before ")
    assert await page.evaluate(PASTE.format('text\n"a, b"')) == ["before a, b"]
    await click(page, "#texts-note button")
    assert await page.evaluate("texts.value") == 'before text\n"a, b"'


async def test_hostile_texts_and_labels_do_not_run(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    names = tuple(f"{HOSTILE}{position}" for position in range(len(model.labels)))
    texts = tuple(f"{text} {HOSTILE}" for text in model.example_texts)
    hostile = replace(
        model, labels=names, descriptions=(HOSTILE,) * len(names), example_texts=texts
    )
    endpoint = await started(hostile)
    page = await opened(browser, endpoint)
    await enter(page, f"{corpus.test[0]} {HOSTILE}")
    odd = "10, 0x202e, 65, 0x0007, 66"  # right to left, and a bell
    await page.evaluate(f"texts.value += String.fromCharCode({odd})")
    await page.press("Enter", ctrl=True)
    await page.until("document.querySelectorAll('.result').length === 2")
    await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    await page.until("document.querySelector('.steps')")
    await click(page, ".result:first-child .feedback button:last-of-type")
    await page.evaluate("fetch('v1/stats').then((answer) => answer.json())")
    for view in VIEWS:
        await page.evaluate(f"location.hash = '#/{view}'")
        await page.until("!document.querySelector('.view:not([hidden]) .status:not(:empty)')")
    assert await page.evaluate("typeof window.ran") == "undefined"
    assert await page.evaluate("document.querySelectorAll('iframe, img, object, meta').length") == 2
    assert HOSTILE in await page.evaluate("document.body.textContent")
    assert "␇" in await page.evaluate("document.querySelector('#results').textContent")
    assert await page.complaints() == []
    await assert_keeps_to_itself(page, endpoint)


async def test_the_theme_follows_the_system_until_one_is_chosen(
    browser: Browser, started: Started
) -> None:
    page = await opened(browser, await started())
    ground = "getComputedStyle(document.body).backgroundColor"
    await page.scheme("dark")
    dark = await page.evaluate(ground)
    await page.scheme("light")
    light = await page.evaluate(ground)
    assert light != dark
    await click(page, "#theme")  # light
    await page.scheme("dark")
    assert await page.evaluate(ground) == light
    page.loaded.clear()
    await page.call("Page.reload")
    await page.loaded.wait()
    assert await page.evaluate(ground) == light
    await page.until("document.querySelector('#theme svg')")
    await click(page, "#theme")  # dark
    await page.scheme("light")
    assert await page.evaluate(ground) == dark
    await click(page, "#theme")  # the system again
    assert await page.evaluate(ground) == light


async def test_a_new_bundle_is_noticed(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    endpoint = await started()
    page = await opened(browser, endpoint, "classify")
    before = await shown(page, "#answering .copy")
    described = replace(model, descriptions=("another one",) * len(model.labels))
    new = save_bundle(described, RunFolder(Path(endpoint.settings.run)).bundle, {})
    await page.until(
        "fetch('readyz').then((a) => a.json()).then((a) => window.now = a.bundle) && "
        f"window.now === {new!r}"
    )
    await classify(page, corpus.test[0])
    await page.until(f"document.querySelector('#answering .copy').textContent !== {before[0]!r}")
    assert await shown(page, "#answering .copy") == [new[:8]]


async def test_the_model_view_tells_what_is_promised_and_known(
    browser: Browser, started: Started, simulated: JudgeTier, model: RedModel
) -> None:
    page = await opened(browser, await started(judge=simulated), "model")
    await page.until("document.querySelector('#model .curve svg')")
    words = " ".join(await shown(page, "#model"))
    assert "At most 50 % of the texts are escalated." in words
    assert "This is an estimate" in words
    assert "never tested" in words
    assert await shown(page, "#model .judge-name") == ["simulated:1 simulated"]
    await page.evaluate("document.getElementById('label-search').focus()")
    await page.type("topic03")
    assert await shown(page, "#model tbody th") == ["family0_topic03"]
    assert "1 of 12 labels" in await shown(page, "#model .find .hint")
    await page.evaluate("""(() => {
        const slider = document.querySelector("#model input[type=range]");
        slider.value = slider.max;
        slider.dispatchEvent(new Event("input"));
    })()""")
    assert (await shown(page, ".readout span"))[0] == "100.0 % escalated"
    assert await page.complaints() == []


async def test_calibration_rows_make_it_a_guarantee(
    browser: Browser, started: Started, model: RedModel
) -> None:
    assert model.promise is not None
    sworn = replace(model, promise=replace(model.promise, source="rows"))
    page = await opened(browser, await started(sworn), "model")
    await page.until("document.querySelector('#model .lead')")
    words = " ".join(await shown(page, "#model"))
    assert "This is a guarantee" in words
    assert "an estimate" not in words


async def test_a_tested_run_shows_its_scorecard(
    browser: Browser, started: Started, tmp_path: Path
) -> None:
    endpoint = await started()
    card = """{"n_test": 3073, "n_labels": 77, "accuracy": 0.915, "accuracy_ci": [0.905, 0.925],
        "baselines": {"flat": 0.9, "flat_ci": [0.889, 0.91], "oracle_routed": 0.943},
        "leaks": {"train_test": 0, "train_test_dropped": 7}}"""
    (Path(endpoint.settings.run) / "scorecard.json").write_text(card, encoding="utf-8")
    page = await opened(browser, endpoint, "model")
    await page.until("document.querySelector('#model .compare')")
    assert await shown(page, "#model .tile") == [
        "Accuracy 91.5 % 90.5 – 92.5 % test texts whose most probable label is true"
    ]
    names = [one.split(" ")[0] for one in await shown(page, ".compare-name")]
    assert names == ["This", "Flat", "Oracle-routed"]
    assert "never tested" not in " ".join(await shown(page, "#model"))


async def test_live_counts_what_was_done(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    page = await opened(browser, await started())
    await classify(page, *corpus.test[:5])
    await page.evaluate("location.hash = '#/live'")
    await page.until("document.querySelector('#live .tiles')")
    assert "5 texts in 1 request since then" in await shown(page, "#live-facts span")
    await page.evaluate("location.hash = '#/classify'")
    await classify(page, *corpus.test[:3])
    await page.evaluate("location.hash = '#/live'")
    await page.until("document.querySelector('#live-facts').innerText.includes('8 texts')")
    assert await page.complaints() == []


def alarm(share: float, *, estimate: bool = False) -> Callable[[Service], None]:
    """The service finds that another share is escalated than was promised."""

    def change(service: Service) -> None:
        answer = service.stats

        async def stats() -> Stats:
            found = await answer()
            told = {"share": share, "n_texts": 1000, "promised": 0.3, "low": 0.26, "high": 0.34}
            more = {"estimate": estimate, "alarm": not 0.26 < share < 0.34}
            rate = found.escalation.model_copy(update=told | more)
            return found.model_copy(update={"escalation": rate})

        service.stats = stats  # type: ignore[method-assign]

    return change


@pytest.mark.parametrize(
    ("share", "heading"),
    [
        (0.45, "More is escalated than promised"),
        (0.1, "Less is escalated than promised"),
        (0.31, "As promised"),
    ],
)
async def test_an_alarm_says_what_it_means_and_what_to_do(
    share: float, heading: str, browser: Browser, started: Started
) -> None:
    page = await opened(browser, await started(change=alarm(share)), "live")
    await page.until("document.querySelector('.promise h2')")
    assert await shown(page, ".promise h2") == [heading]
    words = " ".join(await shown(page, ".promise"))
    assert f"{100 * share:.1f} % of the last 1,000 texts" in words
    assert "26.0 % to 34.0 %" in words
    assert ("red-ray thresholds RUN --goal" in words) is (heading != "As promised")


async def test_a_promise_from_training_rows_is_called_an_estimate(
    browser: Browser, started: Started
) -> None:
    page = await opened(browser, await started(change=alarm(0.45, estimate=True)), "live")
    await page.until("document.querySelector('.promise h2')")
    assert await shown(page, ".promise h2") == ["More is escalated than expected"]
    words = " ".join(await shown(page, "#live"))
    assert "An estimate from training rows, no guarantee" in words
    assert "Line: expected" in words
    assert "Calibration promised" not in words


async def test_a_failed_takeover_is_told(
    browser: Browser, started: Started, corpus: Corpus
) -> None:
    endpoint = await started()
    manifest = RunFolder(Path(endpoint.settings.run)).bundle / "manifest.json"
    manifest.write_text("{}", encoding="utf-8")
    page = await opened(browser, endpoint, "model")
    await page.until("document.querySelector('#model .what')")
    while not await shown(page, "#model .notice.bad"):
        with suppress(AssertionError):
            page.loaded.clear()
            await page.call("Page.reload")
            await page.loaded.wait()
            await page.until("document.querySelector('#model .what')")
    assert "A newer bundle was not taken over." in (await shown(page, "#model .notice.bad"))[0]


async def test_feedback_of_the_api_empties_the_queue_of_the_page(
    browser: Browser, started: Started, model: RedModel, corpus: Corpus
) -> None:
    services: list[Service] = []
    endpoint = await started(change=services.append)
    page = await opened(browser, endpoint)
    texts = unsure(model, corpus, 2)
    await wait_in_queue(endpoint, page, texts)
    await page.evaluate("location.hash = '#/review'")
    await page.until("document.querySelector('.choice')")
    assert await shown(page, "#queue-count") == ["2"]
    await services[-1].feedback([Feedback(text=text, label=None) for text in texts])
    await page.evaluate("location.hash = '#/classify'")
    await page.evaluate("location.hash = '#/review'")
    await page.until("document.querySelector('.finished')")
    assert await shown(page, ".finished h2") == ["Nothing waits for a person"]
    assert await shown(page, "#queue-count") == []
