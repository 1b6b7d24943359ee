"""The spec of an encoder from its files, without loading it."""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from red_ray.encoding.files import find_model, settings_sha256, weights_sha256
from red_ray.encoding.spec import EncoderSpec

if TYPE_CHECKING:
    from red_ray.config import EncoderConfig

# Measured with MiniLM on two cores: 16 rows give 15 % fewer texts/s than 32 in bulk (1,617 and
# 1,915), and take 14 ms instead of 24 for one text, since every batch is padded to this many.
BATCH_ROWS = 16
# What Linux calls a processor's own bfloat16 arithmetic, on x86 and on Arm. AVX-512 alone is
# not enough: torch then computes in float32 and converts, which is slower than float32.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_NVIDIA = (Path("/dev/nvidiactl"), Path("/proc/driver/nvidia/version"))


def resolve_spec(config: EncoderConfig) -> EncoderSpec:
    """What `SentenceEncoder.load(config)` would load, told from the files alone.

    Imports torch only where there is an NVIDIA driver, to ask it about the card.

    Raises:
        EncoderError: the model cannot be found or its files cannot be read.
    """
    return spec_of_folder(config, find_model(config.model, config.revision))


def spec_of_folder(config: EncoderConfig, folder: Path) -> EncoderSpec:
    """The spec of the model in `folder` under `config`.

    Raises:
        EncoderError: its files cannot be read.
    """
    device = choose_device()
    return EncoderSpec(
        model=config.model,
        revision=config.revision,
        weights_sha256=weights_sha256(folder),
        dtype=_choose_dtype(device) if config.dtype == "auto" else config.dtype,
        max_tokens=config.max_tokens,
        truncate_dim=config.truncate_dim,
        prompt=config.prompt,
        normalised=True,
        batch_rows=BATCH_ROWS,
        settings_sha256=settings_sha256(folder),
        device=device,
    )


@lru_cache(maxsize=1)
def choose_device() -> str:
    """`cuda` where torch sees a card, else `cpu`; asks torch only where there is a driver."""
    if not any(path.exists() for path in _NVIDIA):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _choose_dtype(device: str) -> str:
    if device == "cpu":
        return "bfloat16" if _processor_flags() & _BFLOAT16_FLAGS else "float32"
    import torch

    # Emulated bfloat16 on an old card is slower than float32.
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float32"


@lru_cache(maxsize=1)
def _processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    if platform.system() != "Linux":
        return frozenset()  # float32 then: right everywhere, if slower
    with cpuinfo.open(encoding="utf-8") as lines:
        # The first processor speaks for all; the file is long on a big machine.
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(value.split())
    return frozenset()
