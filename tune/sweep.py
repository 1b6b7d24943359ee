"""Runs a sweep on Ray Tune; `python -m tune.sweep` is `red-ray tune`.

A record on disk, not Tune's state, says which settings have ended: Tune keeps its own every few
seconds, and a setting that ended between that and a kill would be run again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace

from red_ray.config import RunConfig
from red_ray.data.inputs import Inputs
from red_ray.encoding import open_encoder
from red_ray.judges import Ledger, make_judge
from tune.folder import Place, Record, records_of
from tune.plot import write_plot
from tune.points import best_of, rank
from tune.results import Row, rows_of, write_table
from tune.rows import texts_to_encode
from tune.space import Setting, SweepConfig, asks_together, base_config, known_settings
from tune.trial import Asking, Shared

POLL_S = 1.0
"""How often the records are looked at for the progress."""


@dataclass(frozen=True, slots=True)
class SweepStep:
    """How far a sweep is.

    Attributes:
        n_done: settings that have ended.
        n_total: of so many.
        best: record of the best one so far.
    """

    n_done: int
    n_total: int
    best: Record | None


OnStep = Callable[[SweepStep], None]


def run_sweep(
    sweep: SweepConfig, inputs: Inputs, place: Place, *, on_step: OnStep
) -> tuple[Row, ...]:
    """Try all settings that have not ended, on the cluster that this process is connected to.

    Args:
        sweep: the sweep.
        inputs: all rows.
        place: its folder.
        on_step: called from another thread as settings end.

    Returns:
        One row for each setting and goal, the best ones first.

    Raises:
        RunError: a setting failed that is worth another try, or none could be used.
        ConfigError: the search needs a package that is not installed.
    """
    # Not above: what `python -m tune.sweep` runs must set Ray up before it is imported.
    from tune.tuning import pool_of, run_trials, settings_ended

    settings = known_settings(sweep)
    n_total = len(settings) or sweep.n_trials or 0
    # Optuna may draw a setting twice, which has one record.
    told = settings_ended(sweep, place) if not settings else []
    base = base_config(sweep)
    with ExitStack() as stack:
        if not _all_ended(place, settings or told, n_total):
            pool = pool_of(sweep, place)
            if pool is not None:
                # As long as this process uses it, the pool does not end with a setting.
                stack.callback(pool.opened().end)
            shared = _shared(sweep, settings, inputs, place, pool)
            stack.enter_context(_watching(sweep, place, settings, n_total, on_step))
            run_trials(sweep, settings, shared)
    records = records_of(place, settings)
    rows = rows_of(sweep, records, _usd_per_call(place, base))
    write_table(place.results, sweep, rows)
    write_plot(place.path, sweep, rows)
    return rows


def _all_ended(place: Place, settings: Sequence[Setting], n_total: int) -> bool:
    """Whether so many trials, some perhaps of one setting, have ended by their records."""
    if len(settings) < n_total:
        return False
    ended = {record.id for record in place.records() if record.has_ended}
    return all(one.id in ended for one in settings)


def _shared(
    sweep: SweepConfig,
    settings: Sequence[Setting],
    inputs: Inputs,
    place: Place,
    asking: Asking | None,
) -> Shared:
    """Encode every text once, here."""
    texts = texts_to_encode(settings, inputs)
    with closing(open_encoder(base_config(sweep).encoder)) as encoder:
        vectors = encoder.encode(texts)
        spec = encoder.spec
    # The calibration rows are the chosen setting's alone.
    return Shared(sweep, replace(inputs, calibration=None), texts, vectors, spec, place, asking)


def _usd_per_call(place: Place, base: RunConfig) -> float | None:
    """Mean price of a request to the sweep's judge, of all that the ledger knows of."""
    where = base.judge.ledger or (str(place.ledger) if place.ledger.exists() else None)
    if where is None or not asks_together(base):
        return None
    judge = make_judge(base.judge, seed=base.seed)
    with closing(Ledger(where)) as kept:
        bill = kept.requests_by_judge().get(judge.name)
    if bill is None or bill.cost_usd is None:
        return None
    return bill.cost_usd / bill.requests


@contextmanager
def _watching(
    sweep: SweepConfig, place: Place, settings: Sequence[Setting], n_total: int, on_step: OnStep
) -> Iterator[None]:
    """Tell of the settings as they end; Tune's own callbacks do not survive a restore."""
    ended = threading.Event()

    def worth(one: Record) -> tuple[float, ...]:
        return rank(best_of(one.points, sweep.objective), sweep.objective)

    def watch() -> None:
        told = -1
        while True:
            last = ended.wait(POLL_S)
            done = [one for one in records_of(place, settings) if one.has_ended]
            if len(done) != told:
                told = len(done)
                able = [one for one in done if one.points]
                on_step(SweepStep(told, n_total, max(able, key=worth, default=None)))
            if last:
                return

    thread = threading.Thread(target=watch, name="sweep-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    from red_ray.cli.app import app

    app(["tune", *sys.argv[1:]], prog_name="red-ray")
