"""What is told of the model that answers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime

import pytest

from red_ray.bundle import load_bundle, save_bundle
from red_ray.config import JudgeConfig
from red_ray.core.thresholds import CalibrationRows, promise
from serve.about import judge_info, model_info, promised, scorecard_of, thresholds_of
from serve.schemas import LimitsInfo, ModelInfo
from tests.unit.training.fakes import train

LIMITS = LimitsInfo(texts_per_call=4, chars_per_text=100, body_bytes=1000, wait_s=1.0)
NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def bare(corpus):
    """Without a goal."""
    return asyncio.run(train(corpus.job())).model


def with_goal(model, source="cross_fitted", rows=None, **goals):
    found = promise(
        rows or model.calibration, goals, confidence=0.8, none_default=0.5, source=source
    )
    return dataclasses.replace(model, promise=found)


@pytest.fixture(scope="module")
def model(bare):
    return with_goal(bare, escalate_at_most=0.3)


@pytest.fixture
def run(model, tmp_path):
    (tmp_path / "run").mkdir()
    save_bundle(model, tmp_path / "run" / "bundle", {"scorecard": {"accuracy": 0.5}})
    return tmp_path / "run"


def told(model, run, **more):
    given = {"loaded_at": NOON, "layout": "packed", "judge": None, "limits": LIMITS} | more
    return model_info(model, run, **given)


def test_all_labels_are_told_with_their_expert_and_examples(model, run):
    info = told(model, run)
    assert [one.label for one in info.labels] == list(model.labels)
    for position, one in enumerate(info.labels):
        assert position in model.subsets[int(one.expert.removeprefix("expert-"))]
        assert one.n_examples == int((model.example_labels == position).sum())
    assert sum(one.n_examples for one in info.labels) == len(model.example_texts)
    assert info.n_experts == len(model.subsets)


def test_it_survives_the_bundle_and_the_wire(model, run):
    read = load_bundle(run / "bundle")
    info = told(read, run, failed_update="why not")
    assert info.bundle == read.bundle_id
    assert ModelInfo.model_validate_json(info.model_dump_json()) == info
    assert info.promised_share == promised(model).share
    assert set(info.versions) >= {"red-ray", "ray", "torch", "python"}
    assert (info.failed_update, info.dtype) == ("why not", read.encoder_config.dtype)


def test_the_promise_is_what_the_cross_fitted_rows_say(model):
    risk = model.calibration.risk(model.thresholds.none)
    n_escalated = int((risk >= model.thresholds.escalate).sum())
    assert n_escalated > 0
    found = promised(model)
    assert (found.n_escalated, found.n_rows) == (n_escalated, len(risk))
    assert found.is_estimate


def test_the_promise_of_rows_that_are_not_in_the_bundle_is_read_off_the_curve(bare):
    seen = bare.calibration
    rows = CalibrationRows(
        *(getattr(seen, name)[::2] for name in ("label_risk", "right", "offered", "none")),
        none_out_of_scope=seen.none_out_of_scope,
    )
    model = with_goal(bare, source="rows", rows=rows, escalate_at_most=0.3)
    risk = rows.risk(model.thresholds.none)
    found = promised(model)
    assert found.n_escalated == int((risk >= model.thresholds.escalate).sum()) > 0
    assert found.n_rows == len(risk) < len(seen.none)
    assert thresholds_of(model).source == "rows"
    assert not found.is_estimate


def test_a_goal_that_escalates_nothing_promises_nothing(bare):
    model = with_goal(bare, precision=0.01)
    assert model.thresholds.escalate is None
    assert promised(model).share == 0
    assert thresholds_of(model).goals == {"precision": 0.01}


def test_without_a_goal_there_is_no_promise(bare, run):
    info = told(bare, run)
    assert (info.promised_share, info.curve) == (None, [])
    none = bare.config.router.none_threshold
    assert info.thresholds.model_dump(exclude_none=True) == {"none": none}


def test_the_curve_has_the_chosen_threshold(model, run):
    info = told(model, run)
    (chosen,) = [one for one in info.curve if one.threshold == info.thresholds.escalate]
    assert chosen.escalated == info.promised_share
    assert len(info.curve) == len(model.promise.curve)
    by_threshold = {one.threshold: one for one in model.promise.curve}
    assert all(one.recall == by_threshold[one.threshold].catch for one in info.curve)


# --- the scorecard -----------------------------------------------------------------------------


def test_the_runs_own_scorecard_comes_first(run):
    assert scorecard_of(run) == {"accuracy": 0.5}
    (run / "scorecard.json").write_text(json.dumps({"accuracy": 0.75}))
    assert scorecard_of(run) == {"accuracy": 0.75}


def test_a_bundle_alone_carries_its_scorecard(run):
    assert scorecard_of(run / "bundle") == {"accuracy": 0.5}


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "\xff"])
def test_a_damaged_scorecard_is_left_out(run, text):
    (run / "scorecard.json").write_bytes(text.encode("latin-1"))
    assert scorecard_of(run) is None


@pytest.mark.parametrize("facts", ["{}", '{"scorecard": null}', '{"scorecard": 3}', "{"])
def test_a_run_that_was_never_tested_has_none(run, facts):
    (run / "bundle" / "provenance.json").write_text(facts)
    assert scorecard_of(run) is None


def test_a_place_without_anything_has_none(tmp_path):
    assert scorecard_of(tmp_path / "nowhere") is None


# --- the judge ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "simulated"), [("simulated:0.9", True), ("ollama:m", False), ("neighbours", False)]
)
def test_a_simulated_judge_is_told_as_such(spec, simulated):
    info = judge_info(JudgeConfig(spec=spec, top_k=4), wait_s=2.0, on_failure="abstain")
    assert (info.judge, info.simulated, info.top_k) == (spec, simulated, 4)
    assert (info.question, info.wait_s, info.on_failure) == ("choose", 2.0, "abstain")


def test_without_a_judge_there_is_none_to_tell_of():
    assert judge_info(JudgeConfig(), wait_s=2.0, on_failure="abstain") is None
