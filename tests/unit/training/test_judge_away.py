"""A judge that is away in a round: said at once, and again while it lasts."""

from __future__ import annotations

from types import SimpleNamespace

from red_ray.training.asking import BACK, Asking
from red_ray.types import Progress


async def test_a_pause_is_told_anew_every_half_minute_with_what_can_be_done() -> None:
    now_s, notice = [0.0], ["pausing for up to 600 s: refused"]

    async def stats() -> SimpleNamespace:
        return SimpleNamespace(waiting=1, in_flight=1, notice=notice[0])

    validator = SimpleNamespace(stats=stats)
    asking = Asking(validator, clock=lambda: now_s[0])  # type: ignore[arg-type]
    told = [Progress("judge", 0, 3)]
    for at_s in (5.0, 20.0, 36.0, 50.0, 66.0, 70.0):
        now_s[0] = at_s
        notice[0] *= at_s < 70
        told.append(await asking._how_far(3, told[-1]))
    messages = [step.message for step in told[1:]]
    assert messages[0] == messages[1] == "pausing for up to 600 s: refused"
    assert messages[2] == messages[3] != messages[4]
    assert messages[2].endswith(
        "refused; for 30 s now. Ctrl-C stops the run, and `red-ray resume` goes on with it"
    )
    assert "for 60 s now" in messages[4]
    assert messages[5] == BACK
    assert {step.done for step in told[1:]} == {1}
