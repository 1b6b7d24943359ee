"""Texts to vectors, with bits that depend on the text alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from red_ray.core.text import checked_texts, encodable
from red_ray.encoding.batches import Batch, TokenTable, bucket_lengths, cut_batches
from red_ray.encoding.bert import bare_bert
from red_ray.encoding.files import find_model
from red_ray.encoding.packing import pack_linears
from red_ray.encoding.quiet import quiet_libraries
from red_ray.encoding.resolve import spec_of_folder
from red_ray.encoding.spec import EncoderSpec
from red_ray.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from red_ray.config import EncoderConfig
    from red_ray.encoding.weights import TunedWeights

FloatArray = npt.NDArray[np.float32]
Item = TypeVar("Item")
Done = TypeVar("Done")

# Texts that a thread tokenises at once: some milliseconds of work, so that threads share it.
_TOKENISE_ROWS = 256
# What the model libraries raise on files that are damaged, foreign or of another version.
_LOAD_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    ImportError,
    TypeError,
    AttributeError,
)


class Encoder(Protocol):
    """Turns texts into rows of unit length."""

    @property
    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of `texts`, shape (n_texts, dim), rows with L2 norm 1."""
        ...


class _Way(NamedTuple):
    """How a batch goes through the model: filled up to `n_rows`, and whether past the library."""

    n_rows: int
    is_bare: bool


class SentenceEncoder:
    """A sentence-transformers model whose rows are the same bits in any company.

    Texts run in batches of fixed shape, or in a quicker way that was seen to give the same bits,
    each forward pass on one intra-op thread: both the shape and the number of intra-op threads
    can change a row's bits in bfloat16. The parallelism comes from a pool of threads, each on
    batches of its own.

    It can be used from several threads at once. Prompts and default prompts in a model's own
    configuration are not applied; only the configured one is.
    """

    def __init__(self, model: Any, spec: EncoderSpec, *, n_threads: int | None = None) -> None:
        """Take over a loaded `SentenceTransformer`; use `load` to make one.

        Args:
            model: in evaluation mode, on the device and in the dtype of `spec`.
            spec: what `model` was loaded from.
            n_threads: see `load`.

        Raises:
            EncoderError: it is not a text transformer, or has fewer dimensions than asked for.
        """
        import torch

        self._spec = spec
        self._transformer, *self._head = list(model)
        self._bare = bare_bert(self._transformer)
        self._device = torch.device(spec.device)
        max_tokens = min(spec.max_tokens, model.max_seq_length or spec.max_tokens)
        self._buckets = bucket_lengths(max_tokens)
        self._tokenizer = private_tokenizer(model, max_tokens)
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        # By texts, length and padding: the quickest way that gives the bits of a full batch.
        self._ways: dict[tuple[int, int, bool], _Way] = {}
        self._pool = _threads(available_processors() if n_threads is None else n_threads)
        self._dim = self._probe_dim()

    @classmethod
    def load(
        cls,
        config: EncoderConfig,
        *,
        n_threads: int | None = None,
        tuned: TunedWeights | None = None,
    ) -> Self:
        """Load the model that `config` names; see `red_ray.encoding.files` for where from.

        Sets torch's intra-op threads to 1 (with one thread of ours, at every call anew) and, unless
        the variable is set, tokenizers' own parallelism to off, both for the whole process.

        Args:
            config: which model, and how it is used.
            n_threads: batches computed at a time; None: one per processor of this process. One
                is the thread that calls. It does not change the result.
            tuned: what fine-tuning changed of the model.

        Raises:
            EncoderError: the model cannot be found, does not load, or is not a text
                transformer; or `tuned` is of another one.
        """
        folder = find_model(config.model, config.revision)
        spec = spec_of_folder(config, folder)
        _set_process_threads()
        model = _load_model(folder, spec.device, spec.dtype)
        if tuned is not None:
            _overlay(model, tuned, config.model)
            spec = tuned.spec(spec)
        return cls(_prepared(model, spec), spec, n_threads=n_threads)

    @property
    def spec(self) -> EncoderSpec:
        """What decides the vectors."""
        return self._spec

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of `texts`.

        Args:
            texts: any strings; beyond `spec.max_tokens` (or the model's own limit) they are cut.

        Returns:
            Shape (n_texts, dim), rows with L2 norm 1. A row's bits depend on its text and on
            `spec` alone, on one kind of machine.

        Raises:
            TypeError: see `checked_texts`.
        """
        texts = checked_texts(texts)
        vectors = np.empty((len(texts), self._dim), dtype=np.float32)
        table = self._tokenise(texts)
        batches = cut_batches(table.lengths, self._buckets, self._spec.batch_rows)
        done = self._each(lambda batch: self._forward(table, batch), batches)
        for batch, rows in zip(batches, done, strict=True):
            vectors[batch.rows] = rows
        return vectors

    def close(self) -> None:
        """End the threads; do not call `encode` afterwards."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tokenise(self, texts: Sequence[str]) -> TokenTable:
        chunks = [texts[i : i + _TOKENISE_ROWS] for i in range(0, len(texts), _TOKENISE_ROWS)]
        return TokenTable.from_ids(list(chain.from_iterable(self._each(self._ids, chunks))))

    def _each(self, work: Callable[[Item], Done], items: Sequence[Item]) -> Iterator[Done]:
        if self._pool is not None:
            return self._pool.map(work, items)
        use_one_intra_op_thread()  # the caller's thread may be a new one
        return map(work, items)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        prompted = [encodable(self._spec.prompt + text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(prompted)]

    def _forward(self, table: TokenTable, batch: Batch) -> FloatArray:
        """The vectors of a batch, in the bits that the library gives for a full one.

        A batch that is not full goes through the model as it is where kernels for that shape sum
        in the same order, and past the library where its own forward pass is known: the first
        one of a shape is run in all ways, which shows it.
        """
        n_rows, full_rows = len(batch.rows), self._spec.batch_rows
        # Without padding the model needs no mask, and may take another way.
        is_padded = bool((table.lengths[batch.rows] < batch.length).any())
        shape = (n_rows, batch.length, is_padded)
        if (known := self._ways.get(shape)) is not None:
            return self._forward_in(known, table, batch)
        standard = _Way(full_rows, is_bare=False)
        vectors = self._forward_in(standard, table, batch)
        bares = (False,) if self._bare is None else (True, False)
        ways = [_Way(rows, is_bare) for rows in sorted({n_rows, full_rows}) for is_bare in bares]
        for way in ways[:-1]:  # the last one is the standard itself
            if self._forward_in(way, table, batch).tobytes() == vectors.tobytes():
                self._ways[shape] = way
                return vectors
        self._ways[shape] = standard
        return vectors

    def _forward_in(self, way: _Way, table: TokenTable, batch: Batch) -> FloatArray:
        import torch

        ids, mask = table.fill(batch, batch_rows=way.n_rows, pad_id=self._pad_id)
        with torch.inference_mode():
            vectors = self._vectors(
                torch.from_numpy(ids), torch.from_numpy(mask), is_bare=way.is_bare
            )
        rows: FloatArray = vectors[: len(batch.rows)].cpu().numpy()
        return rows

    def _vectors(self, ids: torch.Tensor, mask: torch.Tensor, *, is_bare: bool) -> torch.Tensor:
        import torch

        features = {
            "input_ids": ids.to(self._device),
            "attention_mask": mask.to(self._device),
        }
        forward = self._bare if is_bare and self._bare is not None else self._transformer
        features = forward(features)
        # Pooled in float32: with the 8 bits of bfloat16 near neighbours would tie.
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in self._head:
            features = module(features)
        vectors = features["sentence_embedding"].float()[:, : self._spec.truncate_dim]
        return torch.nn.functional.normalize(vectors, dim=1)

    def _probe_dim(self) -> int:
        """Run one short text: the dimension, and a model of another kind, show at once."""
        try:
            table = self._tokenise(["a"])
            batch = Batch(np.zeros(1, dtype=np.int64), int(self._buckets[0]))
            dim = int(next(self._each(lambda one: self._forward(table, one), [batch])).shape[1])
        except _LOAD_ERRORS as error:
            self.close()
            raise EncoderError(
                f"the model {self._spec.model!r} does not encode text as a transformer with a "
                f"pooling layer does ({error!r}); choose a sentence-transformers text model"
            ) from error
        if dim < (self._spec.truncate_dim or 0):
            self.close()
            raise EncoderError(
                f"encoder.truncate_dim is {self._spec.truncate_dim!r}, but {self._spec.model!r} "
                f"has {dim!r} dimensions; take at most as many, or leave it out"
            )
        return dim


def available_processors() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads(n_threads: int) -> ThreadPoolExecutor | None:
    """None where the caller's own thread does it: to wake another takes longer than it helps."""
    if n_threads == 1:
        return None
    return ThreadPoolExecutor(
        max_workers=n_threads, thread_name_prefix="encode", initializer=use_one_intra_op_thread
    )


def use_one_intra_op_thread() -> None:
    """Say so to torch, for this thread: in OpenMP the number belongs to a thread."""
    import torch

    torch.set_num_threads(1)


def _set_process_threads() -> None:
    """Give every thread of this process one intra-op thread, and tokenizers none of its own."""
    # bfloat16 sums differ with the number of intra-op threads, so that a thread that is started
    # later, or by somebody else, must not get more; and a pool of threads is faster anyway
    # (measured on two cores: 950 texts/s, against 600 with two intra-op threads).
    use_one_intra_op_thread()
    # Our threads tokenise side by side. With its own parallelism tokenizers prints a warning on
    # stderr at every later fork, Ray's included, and can deadlock in the child.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# The libraries fill caches and patch classes while they load: one model at a time.
_LOADING = threading.Lock()


def load_for_training(folder: Path, spec: EncoderSpec) -> Any:
    """The model in `folder` as a `SentenceTransformer`, on the device and in the dtype of `spec`.

    In evaluation mode: the noise of dropout is torch's own, which threads would share.

    Raises:
        EncoderError: it does not load.
    """
    import torch

    # On a processor the way back through the fused attention takes thrice as long.
    attention = {"attn_implementation": "eager"} if spec.device == "cpu" else {}
    model = _load_model(folder, spec.device, spec.dtype, **attention)
    model.eval()
    for module in list(model)[1:]:
        module.to(torch.float32)
    return model


def _load_model(folder: Path, device: str, dtype: str, **options: str) -> Any:
    import torch
    from safetensors import SafetensorError

    try:
        # Before it is silenced: on import the libraries set up their own logging.
        from sentence_transformers import SentenceTransformer

        with _LOADING, quiet_libraries():
            return SentenceTransformer(
                str(folder),
                device=device,
                local_files_only=True,
                model_kwargs={"dtype": getattr(torch, dtype), **options},
            )
    except (*_LOAD_ERRORS, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"the model in {str(folder)!r} does not load: {reason}; check that the folder is "
            "complete and that sentence-transformers can open it"
        ) from error


def _overlay(model: Any, tuned: TunedWeights, name: str) -> None:
    """Put what fine-tuning changed in the place of what the model came with."""
    from safetensors.torch import load

    inner = next(iter(model)).auto_model
    try:
        unknown = inner.load_state_dict(load(tuned.tensors), strict=False).unexpected_keys
    except RuntimeError as error:
        raise EncoderError(
            f"the fine-tuned weights do not fit the encoder {name!r}: {error}"
        ) from error
    if unknown:
        raise EncoderError(f"the fine-tuned weights are of another encoder than {name!r}")


def _prepared(model: Any, spec: EncoderSpec) -> Any:
    import torch

    model.eval()
    transformer, *head = list(model)
    for module in head:
        module.to(torch.float32)
    if spec.device == "cpu" and spec.dtype == "bfloat16":
        pack_linears(transformer, n_rows=spec.batch_rows * 16)
    return model


def private_tokenizer(model: Any, max_tokens: int) -> Any:
    """A copy of the model's fast tokenizer, cut and padding set once.

    transformers sets them anew at each call, which fails when threads share a tokenizer.

    Raises:
        EncoderError: the model has none.
    """
    from tokenizers import Tokenizer

    backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise EncoderError(
            f"the model is no text transformer with a fast tokenizer, it begins with {model[0]!r}; "
            "choose a sentence-transformers text model"
        )
    tokenizer = Tokenizer.from_str(backend.to_str())
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer
