"""What can go wrong while writing, told as errors of ours."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from red_ray.errors import OutputError, StorageError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def set_aside(path: Path) -> Path:
    """Give a file a numbered name that is free, as `disputed.1.csv`; the new path."""
    names = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
    free = next(name for name in names if not name.exists())
    path.rename(free)
    return free


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Translate what can go wrong while writing to `place` or below it."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise StorageError(
                f"no space left for {str(place)!r}; free some and run the command again"
            ) from error
        raise OutputError(
            f"cannot write {str(place)!r}: {error.strerror}; choose another place, or mend this one"
        ) from error
