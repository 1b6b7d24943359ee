"""When the loop stops, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

StopMode = Literal["informative_only", "informative_then_all_predicted"]
Phase = Literal["informative", "all_predicted"]


@dataclass(frozen=True, slots=True)
class LoopState:
    """What the stopping rules look at, before an iteration.

    Attributes:
        iteration: iterations done.
        phase: what the next one would ask about.
        iterations_in_phase: iterations done in this phase.
        n_informative: pool texts above the uncertainty threshold.
        n_predicted: pool texts left whose best answer is a label.
        log_likelihoods: the cross-fitted log-likelihoods measured so far, oldest first.
    """

    iteration: int
    phase: Phase
    iterations_in_phase: int
    n_informative: int
    n_predicted: int
    log_likelihoods: Sequence[float]


@dataclass(frozen=True, slots=True)
class StopRule:
    """The limits of a loop; names as in `LoopConfig`."""

    stop_mode: StopMode
    max_iterations: int
    all_predicted_iterations: int
    plateau_patience: int
    plateau_min_gain: float

    def next_phase(self, state: LoopState) -> Phase:
        """The phase that the next iteration belongs to."""
        done = state.phase == "informative" and state.n_informative == 0
        if done and self.stop_mode == "informative_then_all_predicted":
            return "all_predicted"
        return state.phase

    def reason(self, state: LoopState) -> str | None:
        """Why the loop stops before the next iteration, or None to go on.

        An iteration that gains nothing is no reason: the next one asks about other texts.
        """
        if state.iteration >= self.max_iterations:
            return "max_iterations"
        if state.phase == "informative" and state.n_informative == 0:
            return "no_informative"
        if state.phase == "all_predicted":
            if state.n_predicted == 0:
                return "pool_exhausted"
            if state.iterations_in_phase >= self.all_predicted_iterations:
                return "all_predicted_done"
        return "plateau" if self._on_plateau(state.log_likelihoods) else None

    def _on_plateau(self, history: Sequence[float]) -> bool:
        """No gain over the best of before, for `plateau_patience` measurements in a row."""
        if len(history) <= self.plateau_patience:
            return False
        before, recent = history[: -self.plateau_patience], history[-self.plateau_patience :]
        return max(recent) <= max(before) + self.plateau_min_gain
