"""The pool actor: one for a judge, whoever asks; it comes back, and a judge that comes back too."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from red_ray.config import JudgeConfig
from red_ray.data.prepare import LabelledRows
from red_ray.errors import ConfigError, JudgeRefused
from red_ray.judges import Ledger
from red_ray.types import Outcome, Question
from tests.ray.servers import Live, free_port
from tests.servers import by_text, status
from tests.unit.judges.fakes import questions

ANSWERED = {Outcome.LABEL, Outcome.NONE}
NO_ROWS = LabelledRows((), ())


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def opened(cluster: None) -> Iterator[Any]:
    """Opens accounts; their pools end with the test."""
    made = []

    def open_account(ledger: Path, port: int, **settings: Any) -> Any:
        from red_ray.actors.validator import RayValidator
        from red_ray.actors.validator_pool import Account

        spec = f"openai:m@http://127.0.0.1:{port}/v1"
        account = Account(JudgeConfig(spec=spec, **settings), str(ledger), 0)
        validator = RayValidator(account, "run", 0, examples=NO_ROWS, hidden=None)
        validator.open()
        made.append(validator)
        return validator

    yield open_account
    for validator in made:
        if hasattr(validator, "_actor"):  # else a test has ended it
            validator.close()
    made.clear()


def ask(validator: Any, asked: list[Question]) -> list[tuple[Outcome, str | None]]:
    return [(one.outcome, one.label) for one in asyncio.run(validator.validate(asked, 1))]


def test_two_who_ask_one_judge_share_its_pool_and_its_limits(opened, tmp_path, port):
    with Live(port, by_text(delay_s=0.02)) as server:
        one = opened(tmp_path / "one.sqlite", port, concurrency=3)
        two = opened(tmp_path / "two.sqlite", port, concurrency=3, budget_calls=20)
        assert one._actor._actor_id == two._actor._actor_id
        threads = [
            threading.Thread(target=ask, args=(validator, questions(30)))
            for validator in (one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert server.max_in_flight == 3
    assert server.n_requests == 30 + 20, "each has its own ledger and its own budget"


def test_two_who_share_a_ledger_share_its_budget_and_pay_once(opened, tmp_path, port):
    """As the trials of a sweep do; one that ends takes nothing of the other along."""
    ledger = tmp_path / "ledger.sqlite"
    with Live(port, by_text(delay_s=0.3)) as server:
        one = opened(ledger, port, concurrency=8, budget_calls=30)
        two = opened(ledger, port, concurrency=8, budget_calls=30, top_k=3)
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.extend(ask(one, questions(20))))
        asking.start()
        time.sleep(0.2)
        ask_and_leave(two, questions(20))
        asking.join()
        assert len(answers) == server.n_requests == 20
        assert len(ask(one, questions(60))) == server.n_requests == 30
        with pytest.raises(ConfigError, match=r"judge\.budget_calls=30, and this asks for 50"):
            opened(ledger, port, concurrency=8, budget_calls=50)


def ask_and_leave(validator: Any, asked: list[Question]) -> None:
    """Ask, and end the run at once, with everything in flight."""

    async def begin() -> None:
        asking = asyncio.create_task(validator.validate(asked, 1))
        await asyncio.sleep(0.2)
        validator.end()
        await asyncio.gather(asking, return_exceptions=True)

    asyncio.run(begin())


def test_who_asks_for_other_limits_is_told(opened, tmp_path, port):
    with Live(port, by_text()):
        opened(tmp_path / "one.sqlite", port, concurrency=3)
        with pytest.raises(ConfigError, match=r"judge\.concurrency=3, and this asks for 4"):
            opened(tmp_path / "two.sqlite", port, concurrency=4)


def test_a_pool_that_is_killed_comes_back_and_loses_nothing(opened, tmp_path, port):
    ledger = tmp_path / "ledger.sqlite"
    with Live(port, by_text(delay_s=0.05)) as server:
        validator = opened(ledger, port, concurrency=4)
        killer = threading.Thread(target=kill_the_pool_after, args=(server, 20))
        killer.start()
        labels = ask(validator, questions(60))
        killer.join()
        assert {outcome for outcome, _ in labels} == ANSWERED
        assert ask(validator, questions(60)) == labels
        n_unknown = Ledger(ledger).requests_of("run").results.get("unknown", 0)
    assert 0 < n_unknown <= 4, "what was in flight, and nothing else"
    assert server.n_requests <= 60 + n_unknown


def kill_the_pool_after(server: Any, n_requests: int) -> None:
    while server.n_requests < n_requests:
        time.sleep(0.005)
    (pool,) = [
        one
        for one in psutil.Process().children(recursive=True)
        if "ValidatorPool" in " ".join(one.cmdline())
    ]
    pool.kill()


def test_a_judge_that_goes_away_is_waited_for(opened, tmp_path, port):
    """Each question has its answer in the end, though the outage outlasts its own attempts."""
    with Live(port, by_text()):
        validator = opened(
            tmp_path / "ledger.sqlite", port, concurrency=2, max_attempts=2, total_time_s=60
        )
        assert len(ask(validator, questions(5))) == 5
    notices: list[str] = []

    async def watch() -> list[Any]:
        asking = asyncio.create_task(validator.validate(questions(40), 1))
        while not (await asyncio.wait({asking}, timeout=0.1))[0]:
            stats = await validator.stats()
            notices.append(stats.notice)
            if stats.notice and not back.is_set():
                back.set()
        return list(await asking)

    back = threading.Event()
    again = threading.Thread(target=serve_when, args=(back, port))
    again.start()
    verdicts = asyncio.run(watch())
    finished.set()
    again.join()
    assert sum(verdict.outcome in ANSWERED for verdict in verdicts) >= 38
    assert len({one for one in notices if one}) == 1
    assert "pausing for up to 60 s" in next(one for one in notices if one)


finished = threading.Event()


def serve_when(told: threading.Event, port: int) -> None:
    told.wait(30)
    with Live(port, by_text()):
        finished.wait(30)


def test_a_refusal_crosses_the_actor_as_itself(opened, tmp_path, port):
    with Live(port, lambda *_: status(401)):
        validator = opened(tmp_path / "ledger.sqlite", port)
        with pytest.raises(JudgeRefused, match="OPENAI_API_KEY"):
            ask(validator, questions(3))
