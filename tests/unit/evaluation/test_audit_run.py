"""An audit from rows to its folder."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest

from red_ray.data.prepare import LabelledRows
from red_ray.errors import ConfigError, DataError, JudgeTimeout, OutputError
from red_ray.evaluation.audit import AuditFolder
from red_ray.evaluation.audit.figures import accuracy_of
from red_ray.evaluation.audit.report import disputed
from red_ray.evaluation.audit.suite import build_suite
from red_ray.judges import Ledger
from red_ray.judges.ledger import HumanVerdict
from red_ray.judges.simulated import SimulatedJudge
from red_ray.types import Outcome, Reply
from tests.unit.evaluation.auditing import answer, audit_config, audit_job, big_corpus, item, run
from tests.unit.training.fakes import FakeEncoder

SEED = 1
SPECS = ("simulated:0.6", "simulated:0.95", "simulated:0.8")


@pytest.fixture(scope="module")
def corpus():
    return big_corpus()


@pytest.fixture(scope="module")
def three(corpus, tmp_path_factory):
    """An audit of three judges of known accuracy, and its folder.

    One interval in twenty misses the truth by design: the seed is one where none does.
    """
    out = tmp_path_factory.mktemp("three") / "audit"
    return run(audit_job(corpus, audit_config(seed=SEED), *SPECS), out), out


class Scripted:
    """A judge that answers by a function, and counts the questions."""

    def __init__(self, answer, name="scripted"):
        self.answer = answer
        self.name = name
        self.asked = []

    async def ask(self, question, complaint=""):
        self.asked.append(question)
        reply = self.answer(question)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self):
        pass


@pytest.fixture
def scripted(monkeypatch):
    """Puts a scripted judge in the place of whichever is named."""

    def put(answer):
        judge = Scripted(answer)
        monkeypatch.setattr("red_ray.evaluation.audit.asking.make_judge", lambda *_, **__: judge)
        return judge

    return put


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def knowing(truth):
    """Answers as who knows every text's label."""

    def answer(question):
        label = truth[question.text]
        offered = [candidate.label for candidate in question.candidates]
        return Reply(Outcome.LABEL, label) if label in offered else Reply(Outcome.NONE)

    return answer


def first(question):
    return Reply(Outcome.LABEL, question.candidates[0].label)


def test_judges_are_ranked_and_their_intervals_hold_the_truth(three):
    report, _ = three
    assert [one["judge"] for one in report["judges"]] == [SPECS[1], SPECS[2], SPECS[0]]
    for judge, truth in zip(report["judges"], (0.95, 0.8, 0.6), strict=True):
        low, high = judge["held"]["accuracy_ci"]
        assert low <= truth <= high
        assert low < judge["held"]["accuracy"] < high


@pytest.mark.parametrize("accuracy", [0.95, 0.8, 0.6])
async def test_an_interval_holds_the_truth_as_often_as_it_says(corpus, accuracy):
    """The same held part, asked of judges that differ in their draws alone."""
    config = audit_config()
    source = audit_job(corpus, config).source
    suite = build_suite(source, FakeEncoder().encode(corpus.texts), config, {})
    held = [one for one in suite if one.part == "held"]
    truth = dict(zip(corpus.texts, corpus.labels, strict=True))
    n_held = 0
    for seed in range(100):
        judge = SimulatedJudge(accuracy, seed=seed, hidden=truth.get)
        replies = [await judge.ask(one.question) for one in held]
        answers = [answer(one, reply.label) for one, reply in zip(held, replies, strict=True)]
        low, high = accuracy_of(answers).interval
        n_held += low <= accuracy <= high
    assert 90 <= n_held < 100


def test_every_outcome_can_be_reached(corpus, tmp_path):
    """The same three judges against other limits; success and readability are always met."""
    limits = {"go": 0.9, "abort": 0.7}
    config = audit_config(seed=SEED, held_share=0.6, criteria={"accuracy": limits})
    report = run(audit_job(corpus, config, *SPECS), tmp_path / "audit")
    outcomes = {one["judge"]: one["outcome"] for one in report["judges"]}
    assert outcomes == {
        "simulated:0.95": "GO",
        "simulated:0.8": "ITERATE",
        "simulated:0.6": "ABORT",
    }


def test_a_suite_that_is_too_small_is_inconclusive_and_says_what_would_do(corpus, tmp_path):
    report = run(audit_job(corpus, audit_config(size=40), *SPECS[1:]), tmp_path / "audit")
    assert [one["outcome"] for one in report["judges"]] == ["INCONCLUSIVE", "INCONCLUSIVE"]
    assert "held questions do not tell; about" in (tmp_path / "audit" / "audit.md").read_text()


def test_only_the_held_part_decides(corpus, tmp_path, scripted):
    """A judge that is right on the working part alone."""
    truth = dict(zip(corpus.texts, corpus.labels, strict=True))
    out = tmp_path / "audit"
    job = audit_job(corpus, audit_config(), "neighbours")
    scripted(first)
    run(job, out)
    files = (out / "suite" / "held").iterdir()
    held = {json.loads(line)["text"] for path in files for line in path.read_text().splitlines()}

    right = knowing(truth)
    scripted(lambda one: Reply(Outcome.UNREADABLE) if one.text in held else right(one))
    report = run(job, tmp_path / "again")
    judge = report["judges"][0]
    assert (judge["working"]["accuracy"], judge["held"]["accuracy"]) == (1.0, 0.0)
    assert judge["outcome"] == "ABORT"


def test_a_judge_that_always_takes_the_first_candidate_is_found_out(corpus, tmp_path, scripted):
    scripted(first)
    report = run(audit_job(corpus, audit_config(), "neighbours"), tmp_path / "audit")
    position = report["judges"][0]["position"]
    assert position["answers"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert position["truths"] == pytest.approx([0.2] * 5, abs=0.07)
    assert position["p_value"] < 0.01


def test_fair_judges_show_no_position_bias(three):
    for judge in three[0]["judges"]:
        assert judge["position"]["p_value"] > 0.05


def test_run_again_it_asks_nothing_and_says_the_same(corpus, tmp_path, scripted):
    """Failures count as they came: asked until they pass, they would flatter the judge."""

    def answer(question):
        if len(question.text) % 3 == 0:
            return JudgeTimeout("no answer in 1 s")
        return (
            Reply(Outcome.UNREADABLE, reason="it was prose")
            if hash(question.text) % 2
            else first(question)
        )

    config = audit_config({"max_attempts": 1}, size=60)
    judge = scripted(answer)
    before = run(audit_job(corpus, config, "neighbours"), tmp_path / "audit")
    n_asked = len(judge.asked)
    assert n_asked == 60
    after = run(audit_job(corpus, config, "neighbours"), tmp_path / "audit")
    assert len(judge.asked) == n_asked
    assert after == before
    outcomes = after["judges"][0]["all"]["outcomes"]
    assert all(outcomes[name] for name in ("label", "unreadable", "timeout"))


def test_an_audit_cut_short_goes_on(corpus, tmp_path, scripted):
    """The first run may ask 20 times, the held part first; the second pays for the rest."""
    judge = scripted(first)
    out = tmp_path / "audit"
    short = audit_config({"budget_calls": 20}, size=60)
    report = run(audit_job(corpus, short, "neighbours"), out)
    assert (len(judge.asked), report["judges"][0]["n_unasked"]) == (20, 40)
    assert report["judges"][0]["held"]["n"] == 12
    assert "40 questions not asked" in (out / "audit.md").read_text()
    report = run(audit_job(corpus, audit_config(size=60), "neighbours"), out)
    assert (len(judge.asked), report["judges"][0]["n_unasked"]) == (60, 0)
    assert report["judges"][0]["all"]["requests"] == 60


def test_what_a_person_decided_says_nothing_of_the_judge(corpus, tmp_path, scripted):
    judge = scripted(first)
    job = audit_job(corpus, audit_config(size=60), "neighbours")
    run(job, tmp_path / "first")
    text = judge.asked[0].text
    with_person = tmp_path / "second"
    folder = AuditFolder(with_person)
    folder.declare(job.config.audit.criteria, job.source.rows)
    ledger = Ledger(folder.ledger)
    ledger.add_humans([HumanVerdict(text, corpus.names[0])])
    ledger.close()
    report = run(job, with_person)
    assert report["judges"][0]["all"]["n"] == 59
    assert report["judges"][0]["n_unasked"] == 1


def test_the_criteria_stand_in_the_folder_before_anybody_is_asked(corpus, tmp_path, scripted):
    seen = []

    def answer(question):
        seen.append(json.loads((tmp_path / "audit" / "audit.json").read_text()))
        return first(question)

    scripted(answer)
    config = audit_config(size=20)
    run(audit_job(corpus, config, "neighbours"), tmp_path / "audit")
    assert set(seen[0]) == {"declared"}
    assert seen[0]["declared"]["criteria"] == config.audit.criteria.model_dump()
    assert re.fullmatch("[0-9a-f]{64}", seen[0]["declared"]["sha256"])


def test_criteria_that_were_changed_later_are_told_from_those_declared_first(corpus, tmp_path):
    out = tmp_path / "audit"
    first_report = run(audit_job(corpus, audit_config(size=20), "simulated:0.8"), out)
    again = run(audit_job(corpus, audit_config(size=20), "simulated:0.8"), out)
    assert again["declared"] == first_report["declared"]
    assert "before anybody was asked" in (out / "audit.md").read_text()
    easier = audit_config(size=20, criteria={"accuracy": {"go": 0.5, "abort": 0.4}})
    changed = run(audit_job(corpus, easier, "simulated:0.8"), out)["declared"]
    before = first_report["declared"]
    assert [one["sha256"] for one in changed["earlier"]] == [before["sha256"]]
    assert changed["earlier"][0]["at"] == before["at"]
    assert f"had declared others {before['at']}" in (out / "audit.md").read_text()


def test_the_folder_holds_each_question_once(three):
    report, out = three
    counts = report["suite"]["parts"]
    texts = []
    for part, categories in counts.items():
        for category, n in categories.items():
            lines = (out / "suite" / part / f"{category}.jsonl").read_text().splitlines()
            rows = [json.loads(line) for line in lines]
            assert len(rows) == n
            assert {row["category"] for row in rows} <= {category}
            texts += [row["text"] for row in rows]
    assert len(set(texts)) == len(texts) == report["suite"]["n"] == 480


def test_the_report_is_kept_as_it_was_returned(three):
    report, out = three
    assert json.loads((out / "audit.json").read_text()) == json.loads(json.dumps(report))


def test_simulated_judges_are_called_so_everywhere(three):
    _, out = three
    page = (out / "audit.md").read_text()
    assert "simulated:" not in page
    for rank, accuracy in enumerate(("0.95", "0.8", "0.6"), 1):
        assert f"{rank} SIMULATED {accuracy}" in page
    header = (out / "disputed.csv").read_text().splitlines()[0]
    assert header.count("simulated:") == header.count("(SIMULATED)") == 3
    assert all(one["simulated"] for one in three[0]["judges"])
    assert three[0]["providers"][0]["provider"] == "SIMULATED"


def test_disputed_rows_are_those_that_model_and_judge_both_contradict(three):
    report, out = three
    rows = table(out / "disputed.csv")
    assert len(rows) == report["n_disputed"] > 0
    n_against = []
    for row in rows:
        said = [row[f"{spec} (SIMULATED)"] for spec in SPECS]
        assert row["model"] != row["label"]
        assert {*said} - {"", row["label"]}
        assert row["answer"] == ""
        assert set(said) - {""} <= set(row["candidates"].split(" | "))
    n_against = [
        sum(row[f"{s} (SIMULATED)"] not in ("", row["label"]) for s in SPECS) for row in rows
    ]
    assert n_against == sorted(n_against, reverse=True)


@pytest.mark.parametrize(
    ("changes", "label", "n"),
    [
        ({}, "b", 1),
        ({}, "a", 0),  # the judge agrees with the file
        ({}, None, 0),  # none is no other label
        ({"guess": "a"}, "b", 0),  # the model agrees with the file
        ({"planted": True}, "b", 0),  # the judge could not name the label
    ],
)
def test_a_row_is_disputed_where_both_name_another_label(changes, label, n):
    one = replace(item(0), **({"guess": "c"} | changes))
    assert len(disputed([one], {"neighbours": [answer(one, label)]})) == n


def test_a_wrong_label_in_the_file_is_disputed(tmp_path, scripted):
    """A judge that knows better, a model that learnt better, and a row that says otherwise."""
    clean = big_corpus(wrong_every=None)
    truth = dict(zip(clean.texts, clean.labels, strict=True))
    text, wrong = clean.texts[-1], clean.names[0]
    spoilt = replace(clean, labels=(*clean.labels[:-1], wrong))
    scripted(knowing(truth))
    run(audit_job(spoilt, audit_config(none_share=0), "neighbours"), tmp_path / "audit")
    rows = table(tmp_path / "audit" / "disputed.csv")
    assert [(row["text"], row["label"]) for row in rows] == [(text, wrong)]
    assert rows[0]["neighbours"] == rows[0]["model"] == truth[text]


def test_no_cell_of_the_disputed_rows_runs_as_a_formula(corpus, tmp_path):
    spoilt = replace(corpus, texts=tuple(f"=1+1 {text}" for text in corpus.texts))
    run(audit_job(spoilt, audit_config(), "simulated:0.3"), tmp_path / "audit")
    texts = [row["text"] for row in table(tmp_path / "audit" / "disputed.csv")]
    assert texts
    assert all(text.startswith("'=1+1 ") for text in texts)


def test_progress_is_told_for_each_judge(corpus, tmp_path):
    told = []
    job = audit_job(corpus, audit_config(size=20), *SPECS[:2])
    run(job, tmp_path / "audit", lambda spec, stats: told.append(spec))
    assert list(dict.fromkeys(told)) == list(SPECS[:2])


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ((), "needs a judge"),
        (("neighbours", "neighbours"), "given twice"),
        (("oracle",), "unknown judge 'oracle'"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_at_once(corpus, specs, words):
    with pytest.raises(ConfigError, match=words):
        audit_job(corpus, audit_config(), *specs).check()


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(OutputError, match="holds something else; choose another --out"):
        AuditFolder(tmp_path)


def test_a_damaged_report_is_no_excuse_for_new_criteria(tmp_path):
    (tmp_path / "audit.json").write_text("{}")
    with pytest.raises(DataError, match="what was declared is lost"):
        AuditFolder(tmp_path).declare(audit_config().audit.criteria, LabelledRows((), ()))


def test_neighbours_are_audited_without_voting_for_themselves(corpus, tmp_path):
    report = run(audit_job(corpus, audit_config(size=120), "neighbours"), tmp_path / "audit")
    judge = report["judges"][0]
    assert not judge["simulated"]
    assert 0.7 < judge["all"]["accuracy"] < 1.0  # a tenth of the labels is wrong
    assert "1 neighbours" in (tmp_path / "audit" / "audit.md").read_text()
