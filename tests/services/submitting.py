"""Ray's job client in a process of its own, which alone has a cluster's address and token.

`python -m tests.services.submitting` answers a line of JSON with one: a method of
`JobSubmissionClient` with its arguments, and what it returned.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0
POLL_S = 0.1
OVER = ("SUCCEEDED", "FAILED", "STOPPED")


class Jobs:
    """Sends jobs inside `with`.

    Args:
        environment: names the cluster, and the token's file.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.submitting"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def submit(self, entrypoint: str, **options: Any) -> str:
        """Send a job with this checkout; its id."""
        found: str = self._call(
            "submit_job",
            entrypoint=entrypoint,
            runtime_env={"working_dir": str(ROOT)} | options.pop("runtime_env", {}),
            **options,
        )
        return found

    def wait(self, job: str, limit_s: float = LIMIT_S) -> str:
        """The state that a job ends in."""
        end = time.monotonic() + limit_s
        while (status := self._call("get_job_status", job_id=job)) not in OVER:
            assert time.monotonic() < end, self.log(job)
            time.sleep(POLL_S)
        return str(status)

    def stop(self, job: str) -> str:
        """As `ray job stop` does; the state that it ends in."""
        assert self._call("stop_job", job_id=job)
        return self.wait(job)

    def log(self, job: str) -> str:
        return str(self._call("get_job_logs", job_id=job))

    def is_running(self, job: str) -> bool:
        return self._call("get_job_status", job_id=job) not in OVER

    def _call(self, method: str, **arguments: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([method, arguments]) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"the job client ended at {method}"
        return json.loads(line)


def main() -> None:
    """Answer what is asked on stdin."""
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient()
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(client, method)(**arguments)), flush=True)


if __name__ == "__main__":
    main()
