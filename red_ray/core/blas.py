"""One BLAS thread for the whole process, so that the same rows always give the same bits."""

from __future__ import annotations

import functools

import scipy.linalg  # noqa: F401 - loads the BLAS library that is to be limited
from threadpoolctl import threadpool_limits


@functools.cache
def use_one_blas_thread() -> None:
    """Limit the BLAS libraries of this process to one thread, for good.

    With more, the order of sums and so a bundle's id would depend on the machine's load. A limit
    that is lifted again would be lifted for other threads that still compute; parallelism comes
    from workers instead.
    """
    threadpool_limits(limits=1, user_api="blas")
