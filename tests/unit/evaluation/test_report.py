"""The report of a run: one file, safe, honest about what it lacks."""

import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from red_ray.config import dump_config, load_config
from red_ray.errors import DataError, OutputError
from red_ray.evaluation.report import write_report

TOPICS = (
    "order",
    "delivery",
    "payment",
    "refund",
    "account",
    "returns",
    "warranty",
    "device",
    "plan",
)
ASPECTS = ("status", "cancel", "wrong_amount", "how_to_change")
LABELS = [f"{topic}_{aspect}" for topic in TOPICS for aspect in ASPECTS]
HOSTILE = "<script>alert('x')</script><img src=http://evil.example/a.png onerror=alert(1)>"


def iteration(number, rng):
    labelled, none = int(rng.integers(70, 88)), int(rng.integers(5, 12))
    unreadable, failed = int(rng.integers(0, 5)), int(rng.integers(0, 3))
    return {
        "iteration": number,
        "phase": "informative",
        "n_asked": labelled + none + unreadable + failed,
        "n_labelled": labelled,
        "n_none": none,
        "n_unreadable": unreadable,
        "n_failed": failed,
        "n_requests": labelled + none + unreadable + 2 * failed,
        "n_cached": int(rng.integers(0, 4)),
        "n_train": 360 + 79 * number,
        "n_pool": 4000 - 95 * number,
        "experts_refitted": [0, 1, 3],
        "mean_uncertainty": 0.34 * 0.87**number,
        "log_likelihood": -0.9 + 0.35 * (1 - 0.8**number) if number % 3 == 0 else None,
        "estimated_accuracy": 0.8 + 0.09 * (1 - 0.7**number) if number % 3 == 0 else None,
        "label_precision": 0.93 + 0.01 * float(rng.normal()),
        "fit_s": 0.8,
        "score_s": 0.4,
        "acquire_s": 0.2,
        "judge_s": 11.2,
        "recalibrate_s": 0.5,
    }


def scorecard():
    rate = {"accuracy": 0.904, "accuracy_ci": [0.885, 0.920], "macro_f1": 0.899}
    rate |= {"macro_f1_ci": [0.879, 0.917], "answered_share": 0.873}
    rate |= {"answered_share_ci": [0.852, 0.892], "accuracy_decided": 0.957}
    baselines = {"majority": 0.031, "flat": 0.892, "flat_seed_rows": 0.817, "experts_only": 0.874}
    baselines |= {"oracle_routed": 0.948}
    baselines |= {f"{key}_ci": [value - 0.018, value + 0.017] for key, value in baselines.items()}
    router = {"recall_target": 0.95, "recall": 0.961, "positive_rate": 0.127, "n_positive": 137}
    judge = {"calls": 953, "labels_per_call": 0.83, "label_precision": 0.931, "cost_usd": None}
    return {
        "n_test": 1080,
        "n_labels": 36,
        **rate,
        "baselines": baselines,
        "calibration": {
            "source": "cross_fitted",
            "ece": 0.021,
            "ece_ci": [0.014, 0.034],
            "brier": 0.147,
        },
        "router": router | {"n_errors": 104, "accept_precision": 0.957},
        "none": {"auroc": 0.962, "auroc_ci": [0.951, 0.972], "fpr_at_95": 0.164},
        "judge": judge | {"validation_rate": 0.906, "unreadable": 22},
        "leaks": {"train_test": 0, "train_test_dropped": 3},
        "timing_s": {
            "encode": 14.2,
            "fit": 21.0,
            "score": 6.4,
            "judge_wait": 112.0,
            "total": 161.5,
        },
        "seed": 42,
        "versions": {"red_ray": "0.1.0", "python": "3.11.9", "numpy": "2.4.1", "ray": "2.59.0"},
    }


def confusions():
    pairs = [
        (f"{topic}_status", f"{topic}_{aspect}") for topic in TOPICS for aspect in ASPECTS[1:3]
    ]
    texts = [
        "I was told it would be sorted by Friday, and still nothing has happened. What now?",
        "could somebody look at number 61177 please",
    ]
    return [
        {
            "true": true,
            "predicted": wrong,
            "count": 9 - rank // 2,
            "share_of_true": (9 - rank // 2) / 30,
            "examples": texts,
        }
        for rank, (true, wrong) in enumerate(pairs)
    ]


def experts():
    return [
        {
            "expert": f"expert-{index:02d}",
            "labels": LABELS[8 * index : 8 * index + 8],
            "n_rows": 260 - 9 * index,
            "n_noise": 890,
            "accuracy_inside": 0.95 - 0.01 * index,
            "routed_share": 0.21,
            "accuracy": 0.92 - 0.015 * index,
        }
        for index in range(5)
    ]


def details(rng):
    confidence = np.sort(1 - rng.beta(0.7, 4, size=1080))
    right = rng.random(1080) < confidence
    edges = np.linspace(0, 1, 21)
    rates = np.clip(rng.normal(0.9, 0.07, size=(36, 3)), 0, 1)
    bins = zip(np.array_split(confidence, 15), np.array_split(right, 15), strict=True)
    outside = np.histogram(rng.beta(5, 2, 240), edges)[0]
    return {
        "confusions": confusions(),
        "reliability": [[float(c.mean()), float(r.mean()), len(c)] for c, r in bins],
        "experts": experts(),
        "labels": [
            {
                "label": label,
                "n_train": 32,
                "n_test": 30,
                "precision": p,
                "recall": r,
                "f1": f,
                "expert": f"expert-{index // 8:02d}",
            }
            for index, (label, (p, r, f)) in enumerate(zip(LABELS, rates.tolist(), strict=True))
        ],
        "learning_curve": [
            {
                "n_train": 360 + 79 * n,
                "n_requests": 95 * n,
                "estimated_accuracy": 0.8 + 0.09 * (1 - 0.7**n) if n % 3 == 0 else None,
            }
            for n in range(11)
        ],
        "confidence_histogram": {
            "edges": edges.tolist(),
            "correct": np.histogram(confidence[right], edges)[0].tolist(),
            "wrong": np.histogram(confidence[~right], edges)[0].tolist(),
        },
        "none_histogram": {
            "edges": edges.tolist(),
            "in_scope": np.histogram(rng.beta(1, 9, 1080), edges)[0].tolist(),
            "out_of_scope": outside.tolist(),
        },
        "estimate": {"log_likelihood": -0.412, "accuracy": 0.883, "ece": 0.019, "brier": 0.171},
        "judge_spec": "simulated:0.93",
        "stop_reason": "max_iterations",
        "strategy": "similar",
        "n_seed": 360,
        "n_train": 1150,
    }


@pytest.fixture
def run(tmp_path):
    """A whole run: 36 labels, 10 iterations, a simulated judge."""
    folder = tmp_path / "shop-messages"
    folder.mkdir()
    rng = np.random.default_rng(7)
    overrides = {"judge": {"spec": "simulated:0.93"}, "loop": {"acquisition": "entropy"}}
    (folder / "config.yaml").write_text(dump_config(load_config(overrides=overrides)))
    lines = [json.dumps(iteration(number, rng)) for number in range(1, 11)]
    (folder / "iterations.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "scorecard.json").write_text(json.dumps(scorecard()))
    (folder / "details.json").write_text(json.dumps(details(rng)))
    return folder


@pytest.fixture
def bare(tmp_path):
    """A run without a judge and without test rows."""
    folder = tmp_path / "bare"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(load_config()))
    return folder


class Page(HTMLParser):
    """What a browser would see: the elements with their attributes, and the texts."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).replace("\u00a0", " ").split())


def page_of(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


def change(folder, name, **changes):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_loads_nothing(html):
    for tag, attributes in Page(html).elements:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}
        for name in ("src", "srcset", "data", "action"):
            assert name not in attributes
        assert attributes.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_the_report_is_one_file_in_the_run_folder(run):
    before = set(os.listdir(run))
    assert write_report(run) == run / "report.html"
    assert set(os.listdir(run)) - before == {"report.html"}


def test_the_page_loads_nothing(run):
    html = write_report(run).read_text(encoding="utf-8")
    assert_loads_nothing(html)
    assert "http://" not in html
    assert "https://" not in html


def test_writing_twice_gives_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_every_section_link_leads_somewhere_and_ids_are_unique(run):
    elements = page_of(run).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        if "href" in attributes:
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


def test_charts_and_columns_have_names_for_a_screen_reader(run):
    for tag, attributes in page_of(run).elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in {"col", "row"}


def test_headline_figures_stand_with_their_intervals(run):
    text = page_of(run).text
    assert "90.4 % of 1,080 test texts get the right label among 36." in text
    assert "95 % interval 88.5 to 92.0 %" in text
    assert "1.2 points above the flat classifier on the same rows" in text
    assert "3 test rows also stood in the training rows and did not count." in text


def test_the_oracle_figure_is_called_a_ceiling_and_stands_apart(run):
    text = page_of(run).text
    ceiling = text.index("A ceiling, not a result")
    assert ceiling < text.index("Oracle-routed") < text.index("never the accuracy of this model")
    assert text.index("Majority") < ceiling


def test_estimates_are_called_estimates(run):
    text = page_of(run).text
    assert "This is an estimate, not a measurement" in text
    assert "estimated accuracy" in text


def test_a_leak_is_told_at_the_top(run):
    leaks = {"train_test": 4, "train_test_dropped": 0}
    change(run, "scorecard.json", leaks=leaks, n_unknown_label=1)
    text = page_of(run).text
    assert "1 test row of a label never trained counted as wrong." in text
    assert text.index("4 test rows also stand in the training rows") < text.index(
        "Headline figures"
    )


def test_a_simulated_judge_is_named_as_one_before_any_figure(run):
    text = page_of(run).text
    assert text.index("The judge is SIMULATED.") < text.index("Headline figures")
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
    change(
        run,
        "details.json",
        confusions=[pair],
        labels=[label],
        experts=[expert],
        judge_spec=f"simulated:{HOSTILE}",
        stop_reason=HOSTILE,
    )
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
    metas = [a for tag, a in page_of(run).elements if tag == "meta" and "http-equiv" in a]
    policy = metas[0]["content"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}='(;|$)", policy)


def test_long_examples_are_cut(run):
    pair = {"true": "a", "predicted": "b", "count": 1, "examples": ["word " * 2000]}
    change(run, "details.json", confusions=[pair])
    text = page_of(run).text
    assert "word…" in text
    assert text.count("word ") < 100


def test_smaller_confusions_are_counted_not_shown(run):
    text = page_of(run).text
    assert text.count("taken for") == 12
    assert "6 smaller pairs are not shown." in text


def test_a_bare_run_says_what_would_bring_each_part(bare):
    page = page_of(bare)
    assert not any(tag == "svg" for tag, _ in page.elements)
    assert "no test rows were given" in page.text
    assert "red-ray evaluate RUN --test F --oos F" in page.text
    assert "No judge was asked." in page.text
    assert "red-ray thresholds RUN --goal" in page.text
    assert "Everything is as the mode “speed” sets it." in page.text


def test_a_run_without_test_rows_claims_nothing_about_its_errors(run):
    (run / "scorecard.json").unlink()
    known = ("estimate", "judge_spec", "stop_reason", "strategy", "n_seed", "n_train")
    found = json.loads((run / "details.json").read_text())
    (run / "details.json").write_text(json.dumps({key: found[key] for key in known}))
    text = page_of(run).text
    assert "No test row was given a wrong label" not in text
    assert text.count("Needs test rows") == 4
    assert "This is an estimate" in text


@pytest.mark.parametrize("name", ["scorecard.json", "details.json", "iterations.jsonl"])
def test_any_file_but_the_configuration_may_be_absent(run, name):
    (run / name).unlink()
    assert_loads_nothing(write_report(run).read_text(encoding="utf-8"))


@pytest.mark.parametrize("key", ["router", "none", "judge", "calibration", "baselines", "timing_s"])
def test_any_table_of_the_scorecard_may_be_null(run, key):
    change(run, "scorecard.json", **{key: None})
    assert "90.4 %" in page_of(run).text


def test_empty_details_bring_no_empty_charts(run):
    (run / "details.json").write_text("{}")
    (run / "scorecard.json").write_text("{}")
    (run / "iterations.jsonl").write_text("")
    assert not any(tag == "svg" for tag, _ in page_of(run).elements)


def test_a_judge_that_was_never_asked_is_no_missing_judge(run):
    (run / "iterations.jsonl").write_text("")
    change(run, "details.json", stop_reason="no_informative", learning_curve=[])
    text = page_of(run).text
    assert "The judge was never asked." in text
    assert "no pool text was uncertain enough" in text


def test_figures_that_are_no_numbers_are_dashes(run):
    nothing = float("nan")
    change(run, "scorecard.json", macro_f1=nothing, macro_f1_ci=[nothing, nothing])
    labels = [json.loads((run / "details.json").read_text())["labels"][0] | {"f1": nothing}]
    change(run, "details.json", labels=labels)
    assert "nan" not in page_of(run).text.lower().split()


def test_a_single_iteration_and_equal_values_can_be_drawn(run):
    first = (run / "iterations.jsonl").read_text().splitlines()[0]
    (run / "iterations.jsonl").write_text(first)
    histogram = {"edges": [0.0, 0.5, 1.0], "correct": [0, 0], "wrong": [0, 0]}
    change(run, "details.json", confidence_histogram=histogram)
    assert "nan" not in write_report(run).read_text(encoding="utf-8")


def test_only_what_differs_from_the_defaults_is_listed(run):
    text = page_of(run).text
    assert "loop.acquisition entropy margin" in text
    assert "judge.spec simulated:0.93 not set" in text
    assert "loop.max_iterations 10" not in text


def test_weakest_labels_stand_first(run):
    found = json.loads((run / "details.json").read_text())
    weakest = min(found["labels"], key=lambda row: row["f1"])["label"]
    html = write_report(run).read_text(encoding="utf-8")
    table = html[html.index('id="label-table"') :]
    assert re.search(r"<bdi>(.*?)</bdi>", table).group(1) == weakest


def test_a_folder_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no run folder: it holds no config\.yaml"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scorecard.json", "{"),
        ("scorecard.json", "[1]"),
        ("details.json", '{"labels": [{"label": 3}]}'),
        ("details.json", '{"confidence_histogram": {"edges": [0, 1], "correct": [], "wrong": []}}'),
        ("config.yaml", "a: ["),
        ("config.yaml", "no_such_key: 1"),
    ],
)
def test_a_damaged_file_is_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(name)) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_torn_line_of_iterations_is_named(run):
    path = run / "iterations.jsonl"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match=r"iterations\.jsonl, line 10"):
        write_report(run)


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
    with pytest.raises(OutputError, match="No space left"):
        write_report(run)
    assert (run / "report.html").read_bytes() == old
    assert not list(run.glob(".*"))
