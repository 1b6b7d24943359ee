"""Models of a folder, a cache or a hub, found and loaded alike for every method that needs one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.matrix.tasks import Text
from red_ray.encoding.files import find_here, find_model
from red_ray.encoding.quiet import quiet_libraries
from red_ray.errors import ConfigError, EncoderError

# Whether the hub answers at all: transformers itself tries for a minute before it gives up.
_HUB_TIMEOUT_S = 3.0
_TOLD = 200  # characters of a library's reason


class Machine(NamedTuple):
    """Where a model computes, and in what: `cpu` or `cuda`, and a torch dtype."""

    device: str
    dtype: Any

    @property
    def is_half(self) -> bool:
        """Whether it computes in bfloat16."""
        import torch

        return bool(self.dtype is torch.bfloat16)


def machine_of(num_gpus: float, dtype: str) -> Machine:
    """What a column's cell computes on: a graphics card only where the column asks for one.

    Args:
        num_gpus: of the column.
        dtype: of the column; `auto` is bfloat16 on a card that has it, else float32.
    """
    import torch

    device = "cuda" if num_gpus > 0 and torch.cuda.is_available() else "cpu"
    if dtype == "auto":
        is_half = device == "cuda" and torch.cuda.is_bf16_supported()
        return Machine(device, torch.bfloat16 if is_half else torch.float32)
    return Machine(device, getattr(torch, dtype))


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model, which can pad.

    Raises:
        ConfigError: there is no such model here or at the hub.
    """
    from transformers import AutoTokenizer

    with _loading(name) as place:
        tokenizer = AutoTokenizer.from_pretrained(place)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masked wherever it stands as padding
    return tokenizer


def load_classifier(name: str, labels: tuple[str, ...]) -> Any:
    """An encoder with a new head over the labels, in float32.

    Raises:
        ConfigError: there is no such model here or at the hub.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    with _loading(name) as place:
        return AutoModelForSequenceClassification.from_pretrained(
            place,
            id2label=dict(enumerate(labels)),
            label2id={label: at for at, label in enumerate(labels)},
            ignore_mismatched_sizes=True,  # a head that was trained for other labels
            dtype=torch.float32,
        )


def load_decoder(name: str, machine: Machine) -> Any:
    """A language model that writes, ready to be asked.

    Raises:
        ConfigError: there is no such model here or at the hub.
    """
    from transformers import AutoModelForCausalLM

    with _loading(name) as place:
        model = AutoModelForCausalLM.from_pretrained(place, dtype=machine.dtype)
    return model.to(machine.device).eval()


def batches(texts: Sequence[Text], batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Positions of texts, so many at a time, alike long ones together: less of it is padding."""
    order = np.argsort([-sum(map(len, text)) for text in texts], kind="stable")
    for start in range(0, len(texts), batch_size):
        yield order[start : start + batch_size]


def seed_all(seed: int) -> None:
    """Seed every generator that a new head, dropout and the order of rows draw from."""
    from transformers import set_seed

    set_seed(seed)


def free_memory() -> None:
    """Give back what a closed model held on a graphics card."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def n_parameters(model: Any) -> int:
    """Of a model, each counted once."""
    return sum(one.numel() for one in model.parameters())


def n_trained(model: Any) -> int:
    """Of them those that a training changes."""
    return sum(one.numel() for one in model.parameters() if one.requires_grad)


@contextmanager
def _loading(name: str) -> Iterator[str]:
    """Where a model loads from; what goes wrong inside is told in one line."""
    from safetensors import SafetensorError

    place = _place(name)
    try:
        with quiet_libraries():
            yield place
    # What damaged files, unknown kinds and missing packages give; want of memory is not among it.
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise ConfigError(f"the model {name!r} does not load: {_reason(error)}") from error


def _place(name: str) -> str:
    """A folder that holds a model, else its name at the hub, which answers."""
    try:
        if Path(name).expanduser().is_dir():
            return str(find_model(name))
        found = find_here(name)
    except EncoderError as error:
        raise ConfigError(str(error)) from error
    if found is None:
        _check_hub(name)
    return name if found is None else str(found)


def _check_hub(name: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The HTTP library's root error: which library it is changes with the hub client's version.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        with quiet_libraries():
            HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
    except (OSError, http_error, HFValidationError) as error:
        raise ConfigError(
            f"cannot find the model {name!r}: no folder, not in the Hugging Face cache, and the "
            f"hub did not give it ({_reason(error)}); fetch it where the hub can be reached "
            f"(`hf download {name} --local-dir FOLDER`; a licence may have to be accepted there) "
            "and set `model` to that folder"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_TOLD] or type(error).__name__
