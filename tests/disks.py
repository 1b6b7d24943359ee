"""A disk of a few KiB, to be filled up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mounted at `place`; skips the test where nobody may mount.

    Args:
        place: made here.
        size: as `mount -t tmpfs` takes it, for example `8m`.
    """
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here to make a small disk with")
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazy: where a test fails its files may still be open.
        subprocess.run(["umount", "--lazy", str(place)], check=True)
