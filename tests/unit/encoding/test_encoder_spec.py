"""EncoderSpec: its key, and its way into a manifest and back."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest

from red_ray.encoding import EncoderSpec
from red_ray.errors import EncoderError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_sha256", "cd" * 32),
        ("settings_sha256", "cd" * 32),
        ("dtype", "bfloat16"),
        ("max_tokens", 128),
        ("truncate_dim", 64),
        ("prompt", "query: "),
        ("normalised", False),
        ("batch_rows", 32),
        ("device", "cuda"),
    ],
)
def test_what_changes_vectors_changes_the_key(spec: EncoderSpec, field: str, value: Any) -> None:
    assert replace(spec, **{field: value}).key != spec.key


def test_where_the_model_was_found_does_not_change_the_key(spec: EncoderSpec) -> None:
    assert replace(spec, model="/elsewhere", revision="main").key == spec.key


def test_key_is_sha256_hex_and_stays_the_same_between_processes(spec: EncoderSpec) -> None:
    """A changed value here throws away every user's store: change `_NUMERICS` on purpose only."""
    assert spec.key == "5199d60d6301138dcc72f6ec7d2fda6056e0548bffc911dbdcef69fae3a26d92"


def test_dict_and_pickle_give_the_spec_back(spec: EncoderSpec) -> None:
    assert EncoderSpec.from_dict(spec.to_dict()) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_from_dict_names_missing_and_unknown_fields(spec: EncoderSpec) -> None:
    data = spec.to_dict() | {"colour": "red"}
    del data["dtype"]
    with pytest.raises(EncoderError, match=r"missing fields \['dtype'\], unknown.*\['colour'\]"):
        EncoderSpec.from_dict(data)
