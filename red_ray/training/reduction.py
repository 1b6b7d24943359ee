"""UMAP, apart: importing it costs seconds, and most label sets are too small to need it."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def umap_reduce(embeddings: Floats, n_dims: int, seed: int) -> Floats:
    """Reduce label embeddings to `n_dims` dimensions, shape (n_labels, n_dims).

    Seeded, and so on one thread: the same labels always give the same partition.

    Source: McInnes et al., UMAP (2018).
    """
    with warnings.catch_warnings():
        # Says that a seed means one thread, which is wanted, and that numba's cache is cold.
        warnings.simplefilter("ignore")
        from umap import UMAP

        reducer = UMAP(n_components=n_dims, n_neighbors=15, metric="cosine", random_state=seed)
        return np.asarray(reducer.fit_transform(embeddings), dtype=np.float32)
