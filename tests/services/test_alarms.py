"""The alarms ring when they should, and every panel asks what Prometheus understands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from tests.monitoring import FOLDER, RULES, expressions
from tests.services.conftest import Program

CASES = Path(__file__).with_name("prometheus_rules_test.yaml")


def run(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alarm_rings_when_it_should_and_only_then(program: Program, tmp_path: Path) -> None:
    for file in (RULES, CASES):
        shutil.copy(file, tmp_path)
    run(program("promtool"), "test", "rules", tmp_path / CASES.name)


def test_each_alarm_has_a_case() -> None:
    cases = yaml.safe_load(CASES.read_text("utf-8"))["tests"]
    rung = {one["alertname"] for case in cases for one in case["alert_rule_test"] if len(one) > 2}
    assert {f"alarm {name}" for name in rung} == {
        name for name in expressions() if name.startswith("alarm ")
    }


def test_prometheus_takes_the_configuration_and_the_rules(program: Program) -> None:
    run(program("promtool"), "check", "config", FOLDER / "prometheus.yml")


def test_prometheus_understands_every_panel(program: Program, tmp_path: Path) -> None:
    names = enumerate(expressions().values())
    rules = [{"record": f"panel:{at}", "expr": expression} for at, expression in names]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), "utf-8")
    run(program("promtool"), "check", "rules", file)
