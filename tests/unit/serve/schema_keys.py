"""Keys of a Serve configuration that Ray does not know: it accepts misspelt ones in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel


def unknown_keys(model: type[BaseModel], data: dict[str, Any], path: str = "") -> Iterator[str]:
    """Keys of the data that the model does not know, however deep."""
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            yield f"{path}{key}"
            continue
        found = next(_models(field.annotation), None)
        for part in value if isinstance(value, list) else [value]:
            if found is not None and isinstance(part, dict):
                yield from unknown_keys(found, part, f"{path}{key}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models among what a field may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
