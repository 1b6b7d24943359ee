"""What the workers of a batch load in place of an encoder; importable in a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from red_ray.errors import EncoderError
from red_ray.model import RedModel
from tests.unit.training.fakes import FakeEncoder


def fake(model: RedModel) -> RedModel:
    return replace(model, encoder=FakeEncoder())


class DiesOnce(FakeEncoder):
    """The first worker that encodes is killed."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self._mark = mark

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        try:
            self._mark.touch(exist_ok=False)
        except FileExistsError:
            return super().encode(texts)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def dying(mark: Path, model: RedModel) -> RedModel:
    return replace(model, encoder=DiesOnce(mark))


def without_encoder(model: RedModel) -> RedModel:
    raise EncoderError("there is no such model here")


class Busy:
    """Holds a processor."""

    def ready(self) -> bool:
        return True
