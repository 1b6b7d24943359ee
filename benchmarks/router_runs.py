"""What a trained router says of the official test rows: shared by the benchmarks of thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.data import encoder_of, job_of, load, train_alone, true_labels
from red_ray.config import RunConfig
from red_ray.core.risk import RiskModel, fit_risk, plain_risk, risk_features
from red_ray.core.thresholds import CalibrationRows
from red_ray.data.inputs import Inputs
from red_ray.encoding import CachedEncoder
from red_ray.model import RedModel
from red_ray.training import LocalFleet
from red_ray.training.router_host import RouterHost


class RecordingRouter(RouterHost):
    """Fits the learned score whether it is chosen or not."""

    def export(self):  # type: ignore[no-untyped-def]
        seen, mine = self._the_crossfitted, self._the_crossfitted.trusted
        wrong = (seen.best[:, 0] != seen.labels)[mine]
        factor = self._config.router.recall_factor
        RecordingFleet.learned = fit_risk(seen.features[mine], wrong, factor)
        return super().export()


class RecordingFleet(LocalFleet):
    router_kind = RecordingRouter
    learned: RiskModel


@dataclass(frozen=True)
class RouterRun:
    """A model trained without a judge, and its test rows.

    Attributes:
        rows: the official test rows, out-of-scope ones too, as calibration rows are kept.
        plain: one minus the confidence in the best label of each in-scope row.
        learned: the learned score of each.
    """

    config: RunConfig
    inputs: Inputs
    encoder: CachedEncoder
    model: RedModel
    rows: CalibrationRows
    plain: np.ndarray
    learned: np.ndarray


def router_run(data: str, per_label: int, seed: int) -> RouterRun:
    """Train on so many rows per label, and let the model see the test file."""
    config, inputs, test = load(data, per_label, seed)
    encoder = encoder_of(config)
    model = train_alone(job_of(config, inputs), encoder, RecordingFleet).model
    vectors = encoder.encode(test.rows.texts)
    evidence = np.concatenate(list(model.evidence(test.rows.texts, vectors)))
    features = risk_features(evidence, model.router.scores(evidence), model.router.columns)
    seen = model.assess_evidence(evidence)
    right = seen.label_proba.argmax(axis=1) == true_labels(model.labels, test)
    rows = CalibrationRows(
        label_risk=seen.label_risk,
        right=right,
        offered=right,
        none=seen.none,
        none_out_of_scope=none_of(model, encoder, test.out_of_scope),
    )
    learned = RecordingFleet.learned.risk(features)
    return RouterRun(
        config, inputs, encoder, model, rows, plain=plain_risk(features), learned=learned
    )


def none_of(model: RedModel, encoder: CachedEncoder, texts: Sequence[str]) -> np.ndarray:
    """Probability that these texts fit no label."""
    return model.assess(texts, encoder.encode(texts)).none if texts else np.zeros(0)
