"""The dense product of sparse matrices: scipy's own, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from red_ray.core import products
from red_ray.core.products import BLOCK_ROWS, dense_product


def drawn(n_rows, n_columns, seed=0, density=0.2):
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(
        sparse.random(n_rows, n_columns, density, "csr", np.float32, rng, rng.standard_normal)
    )


def by_scipy(left, right):
    return (left @ right).toarray()


@pytest.mark.parametrize("n_rows", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, 3 * BLOCK_ROWS + 1])
def test_it_is_the_product_of_scipy(n_rows):
    left, right = drawn(n_rows, 50), drawn(50, 30, seed=1)
    found = dense_product(left, right)
    assert found.dtype == np.float32
    assert found.tobytes() == by_scipy(left, right).tobytes()


def test_indices_in_any_order_are_summed_in_that_order():
    left, right = drawn(40, 50, density=0.9), drawn(50, 30, seed=1, density=0.9)
    for row in range(40):
        part = slice(left.indptr[row], left.indptr[row + 1])
        left.indices[part], left.data[part] = left.indices[part][::-1], left.data[part][::-1]
    left.has_sorted_indices = False
    assert dense_product(left, right).tobytes() == by_scipy(left, right).tobytes()


def test_empty_rows_and_columns_are_zero():
    nothing = sparse.csr_matrix((5, 50), dtype=np.float32)
    assert not dense_product(nothing, drawn(50, 30)).any()
    assert dense_product(drawn(5, 50), sparse.csr_matrix((50, 0), dtype=np.float32)).shape == (5, 0)


def test_arrays_that_cannot_be_written_are_read():
    """As Ray hands them out."""
    left, right = drawn(20, 50), drawn(50, 30, seed=1)
    expected = by_scipy(left, right)
    for array in (left.data, left.indices, left.indptr, right.data, right.indices, right.indptr):
        array.flags.writeable = False
    np.testing.assert_array_equal(dense_product(left, right), expected)


def test_other_types_go_the_public_way():
    left, right = drawn(20, 50), drawn(50, 30, seed=1)
    wide = left.astype(np.float64)
    np.testing.assert_array_equal(
        dense_product(wide, right), by_scipy(wide, right).astype(np.float32)
    )
    left.indices, left.indptr = left.indices.astype(np.int64), left.indptr.astype(np.int64)
    np.testing.assert_array_equal(dense_product(left, right), by_scipy(left, right))


def test_a_scipy_without_the_kernels_gives_the_same(monkeypatch):
    left, right = drawn(20, 50), drawn(50, 30, seed=1)
    expected = dense_product(left, right)
    monkeypatch.setattr(products, "csr_matmat", None)
    assert dense_product(left, right).tobytes() == expected.tobytes()
