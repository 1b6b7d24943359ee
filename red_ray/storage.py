"""What can go wrong while writing, told as errors of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from red_ray.errors import OutputError, StorageError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


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
        raise OutputError(f"cannot write {str(place)!r}: {error.strerror}") from error
