"""Evidence: every part in its column, every label with its own expert's noise."""

from __future__ import annotations

import numpy as np
import pytest

from red_ray.core.evidence import LEXICAL_COLUMNS, SIMILARITY_COLUMNS, Column, Parts, assemble

SUBSETS = ((0, 3), (1, 2, 4))
N_TEXTS, N_LABELS = 6, 5


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)

    def some(n_columns):
        return rng.standard_normal((N_TEXTS, n_columns)).astype(np.float32)

    return Parts(
        gate=some(N_LABELS),
        experts=(some(3), some(4)),
        similarity=(some(N_LABELS), some(N_LABELS), some(N_LABELS)),
        lexical=(some(N_LABELS), some(N_LABELS)),
    )


def without(parts, **changed):
    values = {name: getattr(parts, name) for name in Parts.__slots__}
    return Parts(**(values | changed))


def test_each_part_stands_in_its_column(parts):
    evidence = assemble(parts, SUBSETS)
    assert evidence.shape == (N_TEXTS, N_LABELS, len(Column))
    np.testing.assert_array_equal(evidence[:, :, Column.GATE], parts.gate)
    for column, values in zip(SIMILARITY_COLUMNS, parts.similarity, strict=True):
        np.testing.assert_array_equal(evidence[:, :, column], values)
    for column, values in zip(LEXICAL_COLUMNS, parts.lexical, strict=True):
        np.testing.assert_array_equal(evidence[:, :, column], values)


def test_a_label_has_its_own_experts_score_and_noise(parts):
    """Defect 5: every label's score comes from its own expert, whatever the subsets' order."""
    evidence = assemble(parts, SUBSETS)
    for subset, scores in zip(SUBSETS, parts.experts, strict=True):
        for column, label in enumerate(subset):
            np.testing.assert_array_equal(evidence[:, label, Column.EXPERT], scores[:, column])
            np.testing.assert_array_equal(evidence[:, label, Column.NOISE], scores[:, -1])


def test_a_part_that_is_missing_leaves_zeros_and_the_rest_alone(parts):
    whole = assemble(parts, SUBSETS)
    for changed, columns in (({"gate": None}, [Column.GATE]), ({"lexical": None}, LEXICAL_COLUMNS)):
        evidence = assemble(without(parts, **changed), SUBSETS)
        assert not evidence[:, :, columns].any()
        kept = [column for column in Column if column not in columns]
        np.testing.assert_array_equal(evidence[:, :, kept], whole[:, :, kept])


def test_an_expert_too_few_is_refused(parts):
    with pytest.raises(ValueError, match="scores of 1 experts for"):
        assemble(without(parts, experts=parts.experts[:1]), SUBSETS)
