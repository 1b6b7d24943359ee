"""The report of a run: one file, safe, honest about what it lacks."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from red_ray.config import dump_config, load_config
from red_ray.errors import DataError, OutputError, StorageError
from red_ray.evaluation.report import write_report
from red_ray.evaluation.report.figures import dollars

TOPICS = ("order", "delivery", "payment", "refund", "account", "return", "plan", "app", "gift")
ASPECTS = ("status", "cancel", "wrong_amount", "how_to_change")
LABELS = [f"{topic}_{aspect}" for topic in TOPICS for aspect in ASPECTS]
HOSTILE = "<script>alert('x')</script><img src=http://evil.example/a.png onerror=alert(1)>"
STAGES = ("fit_s", "score_s", "acquire_s", "judge_s", "recalibrate_s")


def iteration(number, rng):
    ranges = ((70, 88), (5, 12), (0, 5), (0, 3))
    label, none, unreadable, failed = (int(rng.integers(*ends)) for ends in ranges)
    asked = label + none + unreadable + failed
    counts = {"n_asked": asked, "n_labelled": label, "n_none": none, "n_unreadable": unreadable}
    counts |= {"n_failed": failed, "n_requests": asked + failed, "n_cached": 2}
    counts |= {"n_train": 360 + 79 * number, "n_pool": 4000 - 95 * number}
    rates = {"mean_uncertainty": 0.34 * 0.87**number, "log_likelihood": -0.9 + number / 40}
    rates |= {"estimated_accuracy": 0.8 + number / 120, "label_precision": rng.uniform(0.9, 0.95)}
    if number % 3:
        rates |= {"log_likelihood": None, "estimated_accuracy": None}
    start = {"iteration": number, "phase": "informative", "experts_refitted": [0, 1, 3]}
    return start | counts | rates | dict.fromkeys(STAGES, 1.5)


def scorecard():
    rates = {"accuracy": 0.904, "macro_f1": 0.899}
    rates |= {"answered_share": 0.873, "accuracy_decided": 0.957}
    baselines = {"majority": 0.031, "flat": 0.892, "flat_seed_rows": 0.817, "experts_only": 0.874}
    router = {"recall_target": 0.95, "recall": 0.961, "positive_rate": 0.127, "n_positive": 137}
    judge = {"calls": 953, "labels_per_call": 0.83, "label_precision": 0.931, "cost_usd": None}
    card = {"n_test": 1080, "n_labels": 36} | with_intervals(rates)
    card["baselines"] = with_intervals(baselines | {"oracle_routed": 0.948})
    card["calibration"] = {"source": "rows"} | with_intervals({"ece": 0.021, "brier": 0.147})
    card["router"] = router | {"n_errors": 104, "accept_precision": 0.957}
    card["none"] = with_intervals({"auroc": 0.962, "fpr_at_95": 0.164})
    card["judge"] = judge | {"validation_rate": 0.906, "unreadable": 22, "failed": 7}
    card["leaks"] = {"train_test": 0, "train_test_dropped": 3}
    card["timing_s"] = {"encode": 14.2, "fit": 21.0, "judge_wait": 112.0, "total": 161.5}
    return card | {"versions": {"red-ray": "0.1.0", "python": "3.11.9", "ray": "2.59.0"}}


def with_intervals(rates):
    return rates | {f"{key}_ci": [value - 0.019, value + 0.016] for key, value in rates.items()}


def confusions():
    pairs = [(f"{topic}_status", f"{topic}_{other}") for topic in TOPICS for other in ASPECTS[1:3]]
    texts = ["It was to be sorted by Friday, and nothing happened.", "look at 61177 please"]
    told = [{"true": true, "predicted": wrong, "examples": texts} for true, wrong in pairs]
    counts = [9 - rank // 2 for rank in range(len(pairs))]
    return [a | {"count": n, "share_of_true": n / 30} for a, n in zip(told, counts, strict=True)]


def expert(index):
    labels = LABELS[8 * index : 8 * index + 8]
    rates = {"accuracy_inside": 0.95 - 0.01 * index, "accuracy": 0.92 - 0.015 * index}
    rows = {"n_rows": 260 - 9 * index, "n_noise": 890, "routed_share": 0.21}
    return {"expert": f"expert-{index:02d}", "labels": labels} | rows | rates


def labels(rng):
    for index, label in enumerate(LABELS):
        rates = dict(zip(("precision", "recall", "f1"), rng.uniform(0.75, 1, 3), strict=True))
        expert = f"expert-{index // 8:02d}"
        yield {"label": label, "n_train": 32, "n_test": 30, "expert": expert} | rates


def histogram(**groups):
    edges = np.linspace(0, 1, 21)
    counts = {name: np.histogram(values, edges)[0].tolist() for name, values in groups.items()}
    return {"edges": edges.tolist()} | counts


def curve_point(n):
    accuracy = None if n % 3 else 0.8 + n / 120
    return {"n_train": 360 + 79 * n, "n_requests": 95 * n, "estimated_accuracy": accuracy}


def details(rng):
    sure = np.sort(1 - rng.beta(0.7, 4, size=1080))
    right = rng.random(1080) < sure
    bins = zip(np.array_split(sure, 15), np.array_split(right, 15), strict=True)
    none = {"in_scope": rng.beta(1, 9, 1080), "out_of_scope": rng.beta(5, 2, 240)}
    estimate = {"log_likelihood": -0.412, "accuracy": 0.883, "ece": 0.019, "brier": 0.171}
    found = {"judge_spec": "simulated:0.93", "stop_reason": "max_iterations", "n_seed": 360}
    found |= {"strategy": "similar", "n_train": 1150, "estimate": estimate}
    found["confusions"] = confusions()
    found["reliability"] = [[float(c.mean()), float(r.mean()), len(c)] for c, r in bins]
    found["experts"] = [expert(index) for index in range(5)]
    found["labels"] = list(labels(rng))
    found["learning_curve"] = [curve_point(n) for n in range(11)]
    found["confidence_histogram"] = histogram(correct=sure[right], wrong=sure[~right])
    return found | {"none_histogram": histogram(**none)}


def make_run(folder, **overrides):
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(load_config(overrides=overrides)))
    return folder


@pytest.fixture
def run(tmp_path):
    """A whole run: 36 labels, 10 iterations, a simulated judge."""
    rng = np.random.default_rng(7)
    judge, loop = {"spec": "simulated:0.93"}, {"acquisition": "entropy"}
    folder = make_run(tmp_path / "shop-messages", judge=judge, loop=loop)
    lines = [json.dumps(iteration(number, rng)) for number in range(1, 11)]
    (folder / "iterations.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "scorecard.json").write_text(json.dumps(scorecard()))
    (folder / "details.json").write_text(json.dumps(details(rng)))
    return folder


@pytest.fixture
def bare(tmp_path):
    """A run without a judge and without test rows."""
    return make_run(tmp_path / "bare")


def test_settings_that_the_default_does_not_have_are_shown(tmp_path):
    """Prices are by model, and a criterion is null until it is set."""
    prices = {"prices": {"m": {"input_usd": 0.25, "output_usd": 2.0}}}
    criterion = {"criteria": {"p95_latency_s": {"go": 2.0, "abort": 9.0}}}
    folder = make_run(tmp_path / "run", judge=prices, audit=criterion)
    text = page_of(folder).text
    assert "judge.prices.m.input_usd" in text
    assert "audit.criteria.p95_latency_s.go" in text


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, and the texts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).replace("\u00a0", " ").split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def stand_in_order(text, *parts):
    places = [text.index(part) for part in parts]
    return places == sorted(places)


def change(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_loads_nothing(html):
    loading = {"src", "srcset", "data", "action"}
    for tag, attributes in Page(html).elements:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}
        assert not loading & set(attributes)
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in attributes.get("style", "")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert not re.search(r"url\(|@import", style)


def test_the_report_is_one_file_that_loads_nothing(run):
    before = set(os.listdir(run))
    assert write_report(run) == run / "report.html"
    assert set(os.listdir(run)) - before == {"report.html"}
    html = (run / "report.html").read_text(encoding="utf-8")
    assert_loads_nothing(html)
    assert "http" not in html.replace("http-equiv", "")
    assert write_report(run).read_text(encoding="utf-8") == html


def test_every_reference_within_the_page_leads_somewhere(run):
    elements = page_of(run).elements
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for _, a in elements if "href" in a} <= set(ids)
    assert {a["aria-labelledby"] for _, a in elements if "aria-labelledby" in a} <= set(ids)


def test_charts_and_columns_have_names_for_a_screen_reader(run):
    elements = page_of(run).elements
    assert all(a["role"] == "img" and a["aria-label"] for tag, a in elements if tag == "svg")
    assert all(a["scope"] in {"col", "row"} for tag, a in elements if tag == "th")


def test_headline_figures_stand_with_their_intervals(run):
    text = page_of(run).text
    assert "90.4 % of 1,080 test texts get the right label among 36." in text
    assert "95 % interval 88.5 to 92.0 %" in text
    assert "1.2 points above the flat classifier on the same rows" in text
    assert "3 test rows also stood in the training rows and did not count." in text


def test_ceiling_and_estimates_are_named_as_what_they_are(run):
    text = page_of(run).text
    assert stand_in_order(text, "Majority", "A ceiling, not a result", "Oracle-routed")
    assert stand_in_order(text, "Oracle-routed", "never the accuracy of this model")
    assert stand_in_order(text, "Estimate from the training", "not a measurement on new texts")
    assert "estimated accuracy" in text


def test_a_leak_is_told_at_the_top(run):
    leaks = {"train_test": 4, "train_test_dropped": 0}
    change(run, "scorecard.json", leaks=leaks, n_unknown_label=1)
    text = page_of(run).text
    assert "1 test row of a label never trained counted as wrong." in text
    assert stand_in_order(text, "4 test rows also stand in the training rows", "Headline figures")


def test_a_simulated_judge_is_named_as_one_before_any_figure(run):
    text = page_of(run).text
    assert stand_in_order(text, "The judge is SIMULATED.", "Headline figures")
    assert "No language model was asked" in text


def test_a_real_judge_brings_no_notice(run):
    change(run, "details.json", judge_spec="ollama:qwen3:4b")
    text = page_of(run).text
    assert "ollama:qwen3:4b" in text
    assert "SIMULATED" not in text
    assert "No language model" not in text


@pytest.fixture
def hostile(run):
    """Hostile texts wherever a user's text can stand."""
    found = json.loads((run / "details.json").read_text())
    pair = {"true": HOSTILE, "predicted": HOSTILE, "count": 99, "examples": [HOSTILE]}
    label = found["labels"][0] | {"label": HOSTILE, "expert": HOSTILE}
    expert = found["experts"][0] | {"expert": HOSTILE, "labels": [HOSTILE, '"><b onclick=x>']}
    parts = {"confusions": [pair], "labels": [label], "experts": [expert]}
    judge = {"judge_spec": f"simulated:{HOSTILE}", "stop_reason": HOSTILE}
    change(run, "details.json", **parts, **judge)
    change(run, "scorecard.json", versions={HOSTILE: HOSTILE}, timing_s={HOSTILE: 3.0})
    overrides = {"text_column": HOSTILE, "judge": {"spec": f"openai:{HOSTILE}"}}
    (run / "config.yaml").write_text(dump_config(load_config(overrides=overrides)))
    return run


def test_hostile_texts_stay_text(hostile):
    html = write_report(hostile).read_text(encoding="utf-8")
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert "<script>alert" not in html
    assert_loads_nothing(html)
    assert page.text.count("alert('x')") >= 10


def test_the_policy_lets_only_the_own_script_run(run):
    policy = next(a["content"] for _, a in page_of(run).elements if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='(;|$)", policy)


def test_confusions_are_cut_to_what_can_be_read(run):
    text = page_of(run).text
    assert text.count("taken for") == 12
    assert "6 smaller pairs are not shown." in text
    pair = {"true": "a", "predicted": "b", "count": 1, "examples": ["word " * 2000]}
    change(run, "details.json", confusions=[pair])
    text = page_of(run).text
    assert "word…" in text
    assert text.count("word ") < 100


def test_a_bare_run_says_what_would_bring_each_part(bare):
    page = page_of(bare)
    assert "svg" not in dict(page.elements)
    assert "red-ray evaluate RUN --test F --oos F" in page.text
    assert "No judge was asked." in page.text
    assert "No goal was named" in page.text
    assert "Everything is as the mode “speed” sets it." in page.text


def test_a_run_without_test_rows_claims_nothing_about_its_errors(run):
    (run / "scorecard.json").unlink()
    known = ("estimate", "judge_spec", "stop_reason", "strategy", "n_seed", "n_train")
    found = json.loads((run / "details.json").read_text())
    (run / "details.json").write_text(json.dumps({key: found[key] for key in known}))
    text = page_of(run).text
    assert "No test row was given a wrong label" not in text
    assert text.count("Needs test rows") == 5
    assert "This is an estimate" in text


@pytest.mark.parametrize("name", ["scorecard.json", "details.json", "iterations.jsonl"])
def test_any_file_but_the_configuration_may_be_absent(run, name):
    (run / name).unlink()
    assert_loads_nothing(write_report(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", ["router", "none", "judge", "calibration", "baselines", "timing_s"])
def test_any_table_of_the_scorecard_may_be_null(run, key):
    change(run, "scorecard.json", **{key: None})
    assert "90.4 %" in page_of(run).text


def test_empty_files_bring_no_empty_charts(run):
    for name in ("details.json", "scorecard.json"):
        (run / name).write_text("{}")
    (run / "iterations.jsonl").write_text("")
    assert "svg" not in dict(page_of(run).elements)


def test_a_judge_that_was_never_asked_is_no_missing_judge(run):
    (run / "iterations.jsonl").write_text("")
    change(run, "details.json", stop_reason="no_informative", learning_curve=[])
    text = page_of(run).text
    assert "The judge was never asked." in text
    assert "no pool text was uncertain enough" in text


@pytest.mark.parametrize("has_loop", [True, False])
def test_what_a_judge_wrote_and_who_learned_it_is_told(run, has_loop):
    written = {"n_written": 7, "n_labels": 2, "n_learned": 3, "experts": ["expert-01"]}
    if not has_loop:
        (run / "iterations.jsonl").write_text("")
    for n_learned, told in (
        (3, "3 were learned, by expert-01, where cross-fitted accuracy rose. No figure is over"),
        (0, "no expert has learned one, or labels changed since"),
    ):
        change(run, "details.json", paraphrases=written | {"n_learned": n_learned})
        text = page_of(run).text
        assert "The judge wrote 7 paraphrases for 2 labels with few texts: " + told in text


def test_figures_that_are_no_numbers_are_dashes(run):
    nan = float("nan")
    change(run, "scorecard.json", macro_f1=nan, macro_f1_ci=[nan, nan])
    label = json.loads((run / "details.json").read_text())["labels"][0] | {"f1": nan}
    change(run, "details.json", labels=[label], reliability=[[0.5, 0.5, 10], [nan, nan, 0]])
    assert not re.search(r"\bnan\b", write_report(run).read_text(encoding="utf-8"))


def test_a_single_iteration_and_equal_values_can_be_drawn(run):
    path = run / "iterations.jsonl"
    path.write_text(path.read_text().splitlines()[0])
    histogram = {"edges": [0.0, 0.5, 1.0], "correct": [0, 0], "wrong": [0, 0]}
    change(run, "details.json", confidence_histogram=histogram)
    assert "nan" not in write_report(run).read_text(encoding="utf-8")


def test_only_what_differs_from_the_defaults_is_listed(run):
    text = page_of(run).text
    assert "judge.spec simulated:0.93 not set loop.acquisition entropy margin" in text
    assert "loop.max_iterations 10" not in text


def test_weakest_labels_stand_first(run):
    found = json.loads((run / "details.json").read_text())["labels"]
    table = write_report(run).read_text(encoding="utf-8").split('id="label-table"')[1]
    assert (
        re.search(r"<bdi>(.*?)</bdi>", table)[1] == min(found, key=lambda row: row["f1"])["label"]
    )


def test_a_folder_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no run folder: it holds no config\.yaml"):
        write_report(tmp_path)


DAMAGED = [
    ("scorecard.json", "{"),
    ("scorecard.json", "[1]"),
    ("details.json", '{"labels": [{"label": 3}]}'),
    ("details.json", '{"confidence_histogram": {"edges": [0, 1], "correct": [], "wrong": []}}'),
    ("iterations.jsonl", '{"iteration": 1, '),  # torn by a crash
    ("config.yaml", "a: ["),
    ("config.yaml", "no_such_key: 1"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_a_damaged_file_is_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(name)) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_place_that_cannot_be_written_is_told_and_left_clean(run):
    (run / "report.html").mkdir()
    before = set(os.listdir(run))
    with pytest.raises(OutputError, match=r"cannot write .*report\.html"):
        write_report(run)
    assert set(os.listdir(run)) == before


def test_an_old_report_survives_a_failed_write(run, monkeypatch):
    old = write_report(run).read_bytes()

    def no_space(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match="no space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == old
    assert not list(run.glob(".*"))


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "–"), (0, "$0.00"), (0.0031, "$0.0031"), (0.000042, "$0.000042"), (0.25, "$0.25")],
)
def test_a_small_sum_of_money_keeps_digits_that_say_something(value, told):
    assert dollars(value) == told


def test_without_test_rows_the_judge_s_figures_come_from_the_details(run):
    (run / "scorecard.json").unlink()
    change(run, "details.json", judge={"calls": 12, "cost_usd": 0.0031, "from_ledger": 4})
    text = page_of(run).text
    assert "$0.0031" in text
    assert "of this run’s own calls" in text


# --- escalation --------------------------------------------------------------------------------


def asked_rows(**over):
    points = [(0.0, 0.855, 0), (0.05, 0.879, 54), (0.1, 0.897, 108), (0.2, 0.918, 216)]
    curve = [
        {
            "escalated": share,
            "accuracy": accuracy,
            "accuracy_ci": [accuracy - 0.02, accuracy + 0.018],
            "calls": calls,
            "cost_usd": calls * 0.004,
        }
        for share, accuracy, calls in points
    ]
    found = {"judge": "openai:m@http://judge.example/v1", "on_failure": "abstain", "asked": 216}
    return found | {"failed": 0, "simulated": False, "curve": curve} | over


def test_what_a_judge_brings_on_test_rows_is_drawn_with_its_price(run):
    change(run, "scorecard.json", escalation=asked_rows())
    page = page_of(run)
    assert "openai:m@http://judge.example/v1" in page.text
    for words in ("With 20 % escalated", "+6.3 points", "$0.86", "$0.43", "the price in USD"):
        assert words in page.text
    assert "10 % escalated: accuracy 89.7 %, 108 requests, $0.43" in page.text
    assert 'class="band"' in (run / "report.html").read_text()


def test_without_a_price_the_requests_stand_below_the_shares(run):
    free = asked_rows()
    for point in free["curve"]:
        point["cost_usd"] = None
    change(run, "scorecard.json", escalation=free | {"failed": 3, "on_failure": "answer_best"})
    text = page_of(run).text
    assert "Below the shares: requests to the judge" in text
    assert "set judge.prices" in text
    assert "3 gave no result, which keeps the model’s best label" in text
    assert "$" not in text[text.index("Accuracy against what is escalated") :][:300]


def test_a_simulated_judge_of_test_rows_is_named_as_one(run):
    change(run, "scorecard.json", escalation=asked_rows(simulated=True, judge="simulated:0.9"))
    text = page_of(run).text
    assert "Simulated, no language model was asked: simulated:0.9" in text
    assert "nothing was paid: the judge is simulated" in text


def test_a_curve_of_one_point_is_told_and_not_drawn(run):
    change(run, "scorecard.json", escalation=asked_rows(curve=asked_rows()["curve"][:1]))
    page = page_of(run)
    assert "With 0 % escalated" in page.text
    assert 'class="band"' not in (run / "report.html").read_text()


def test_a_hostile_name_of_a_judge_stays_text(run):
    change(run, "scorecard.json", escalation=asked_rows(judge=HOSTILE))
    assert HOSTILE in page_of(run).text
    assert HOSTILE not in (run / "report.html").read_text()
