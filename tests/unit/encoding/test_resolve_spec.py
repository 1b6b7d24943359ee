"""The spec from the files alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from red_ray.config import EncoderConfig
from red_ray.encoding import resolve, resolve_spec
from red_ray.encoding.files import settings_sha256, weights_sha256


@pytest.fixture(autouse=True)
def fresh_flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Before and after: what a test here pretends must not reach the tests of others."""
    forget = resolve._processor_flags.cache_clear
    forget()
    yield
    monkeypatch.undo()
    forget()


def test_the_spec_says_what_was_asked_and_what_was_found(tiny_model: Path) -> None:
    config = EncoderConfig(
        model=str(tiny_model), revision="v1", dtype="float32", truncate_dim=8, prompt="q: "
    )
    spec = resolve_spec(config)
    assert (spec.model, spec.revision, spec.dtype) == (str(tiny_model), "v1", "float32")
    assert (spec.max_tokens, spec.truncate_dim, spec.prompt) == (256, 8, "q: ")
    assert spec.weights_sha256 == weights_sha256(tiny_model)
    assert spec.settings_sha256 == settings_sha256(tiny_model)
    assert spec.normalised
    assert spec.batch_rows == 16


def test_minilm_under_either_name_has_one_key() -> None:
    short, long = (
        resolve_spec(EncoderConfig(model=f"{owner}all-MiniLM-L6-v2"))
        for owner in ("", "sentence-transformers/")
    )
    assert short.key == long.key


def test_neither_import_nor_resolve_brings_torch(tiny_model: Path) -> None:
    code = f"""
import sys
from red_ray.config import EncoderConfig
from red_ray.encoding import resolve_spec
libraries = {{"torch", "transformers", "sentence_transformers", "ray", "huggingface_hub"}}
assert not libraries & set(sys.modules), libraries & set(sys.modules)
resolve_spec(EncoderConfig(model={str(tiny_model)!r}))
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_bf16", "bfloat16"),
        ("flags\t\t: fpu avx2 avx512f avx512bw avx512vl avx512dq", "float32"),
        ("Features\t: fp asimd bf16", "bfloat16"),
        ("nothing of it", "float32"),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, expected: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\nprocessor\t: 1\n", encoding="utf-8")
    flags = resolve._processor_flags(cpuinfo)
    monkeypatch.setattr(resolve, "_processor_flags", lambda: flags)
    assert resolve._choose_dtype("cpu") == expected


def test_other_systems_compute_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve.platform, "system", lambda: "Darwin")
    assert resolve._processor_flags() == frozenset()
