"""A product of sparse matrices straight into a dense one.

scipy counts the cells of such a product before it fills them, which costs a third of the time, and
has no public way around it; its kernels do the same sums in the same order, so the bits are equal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

try:
    from scipy.sparse._sparsetools import csr_matmat, csr_todense
except ImportError:  # no part of its public interface
    csr_matmat = csr_todense = None

Floats = NDArray[np.float32]

BLOCK_ROWS = 16
"""Rows at a time: what they need stays in the processor's cache (measured: half the time of all
rows at once)."""


def dense_product(left: sparse.csr_matrix, right: sparse.csr_matrix) -> Floats:
    """`left @ right` as an array, shape (n_rows, n_columns).

    Args:
        left: shape (n_rows, n_inner), float32.
        right: shape (n_inner, n_columns), float32.
    """
    if csr_matmat is None or not _are_plain(left, right):
        return np.asarray((left @ right).toarray(), dtype=np.float32)
    n_rows, n_columns = left.shape[0], right.shape[1]
    product = np.zeros((n_rows, n_columns), dtype=np.float32)
    starts = np.empty(BLOCK_ROWS + 1, dtype=np.int32)
    # No larger than they must be: what the system hands out anew costs more than one text's sums.
    columns = np.empty(min(BLOCK_ROWS, n_rows) * n_columns, dtype=np.int32)
    values = np.empty(min(BLOCK_ROWS, n_rows) * n_columns, dtype=np.float32)
    ours, theirs = (left.indices, left.data), (right.indptr, right.indices, right.data)
    for first in range(0, n_rows, BLOCK_ROWS):
        block = product[first : first + BLOCK_ROWS]
        n_block = len(block)
        rows = left.indptr[first : first + n_block + 1]
        csr_matmat(n_block, n_columns, rows, *ours, *theirs, starts, columns, values)
        csr_todense(n_block, n_columns, starts, columns, values, block)
    return product


def _are_plain(*matrices: sparse.csr_matrix) -> bool:
    """Whether they have the types that the kernels are called with here."""
    return all(
        one.data.dtype == np.float32 and one.indices.dtype == one.indptr.dtype == np.int32
        for one in matrices
    )
