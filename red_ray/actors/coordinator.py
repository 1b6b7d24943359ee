"""The coordinator actor: drives a run, and tells how far it is."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import cast

from red_ray.actors import logs
from red_ray.actors.metrics import Meter, repeating, tell_progress
from red_ray.training import Fleet, Trainer, TrainingJob
from red_ray.training.fleet import Validator
from red_ray.types import Progress

_log = logging.getLogger(__name__)


class CoordinatorActor(Trainer):
    """Drives a run; holds no model, only handles of those who do.

    Args:
        job: see `Trainer`.
        fleet: see `Trainer`.
        validator: see `Trainer`.
        run: the run's name, in metrics and logs.
    """

    def __init__(
        self, job: TrainingJob, fleet: Fleet, validator: Validator | None, run: str
    ) -> None:
        logs.begin(run)
        super().__init__(job, fleet, validator)
        self._run_name = run

    async def run(self) -> AsyncIterator[Progress]:
        """See `Trainer.run`."""
        meter = Meter(run=self._run_name)
        events = cast("AsyncGenerator[Progress, None]", super().run())
        with repeating(meter.refresh):
            async with aclosing(events):
                async for event in events:
                    tell_progress(meter, event)
                    _write(event)
                    yield event


def _write(event: Progress) -> None:
    """A line for each stage and each round; a stage's message may name no text."""
    if event.iteration is not None:
        # Of the next round from now on; this line is still of the one that ended.
        fields = asdict(event.iteration)
        _log.info("iteration_ended", extra=fields)
        logs.tell(iteration=event.iteration.iteration + 1)
        return
    if event.stage == "judge" and event.done:
        return  # how far the judge is, once a second
    _log.info("stage", extra={"stage": event.stage, "done": event.done, "total": event.total})
    if event.stage == "calibrate":
        logs.tell(iteration=1)
