"""Models of a few thousand random weights, made from any texts; no hub is asked.

They run the code of every method for language models, and say nothing of language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.matrix.config import MatrixConfig
from benchmarks.matrix.tasks import joined, load_task
from red_ray.encoding.quiet import quiet_libraries

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
N_TEXTS = 200
"""Of each task, from which the tokenizers are made."""

_PAD, _UNKNOWN, _START, _BREAK, _MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
_END, _TURNS = "<|end|>", ["<|user|>", "<|assistant|>"]


def tiny_encoder(folder: Path, texts: Sequence[str], *, seed: int = 0) -> Path:
    """A BERT of two layers, with a WordPiece tokenizer of these texts, as transformers saves it."""
    from transformers import BertConfig, BertModel, set_seed

    tokenizer = _word_pieces(texts)
    set_seed(seed)
    model = BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.1,
            hidden_dropout_prob=0.0,  # so few weights learn nothing while some are left out
            attention_probs_dropout_prob=0.0,
        )
    )
    return _save(folder, model, tokenizer)


def tiny_decoder(
    folder: Path,
    texts: Sequence[str],
    *,
    kind: str = "qwen2",
    is_chat: bool = False,
    seed: int = 0,
) -> Path:
    """A Qwen2, Llama or Gemma of two layers, with a byte-level tokenizer of these texts.

    Its weights are random: it writes nonsense, which tells an unreadable answer from a label.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, set_seed

    tokenizer = _byte_pairs(texts)
    if is_chat:
        tokenizer.chat_template = CHAT
    set_seed(seed)
    settings = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=1024,
        initializer_range=0.3,  # so that an adapter can make one word stand out from the others
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _save(folder, AutoModelForCausalLM.from_config(settings), tokenizer)


def make_models(config: MatrixConfig, folder: Path) -> tuple[Path, ...]:
    """An encoder and a decoder with tokenizers of the first texts of each task of a matrix.

    Raises:
        DataError: the rows of a task cannot be read.
    """
    texts = []
    for name, task in config.tasks.items():
        loaded = load_task(name, task, config.seeds[0]).task
        texts += [*loaded.words, loaded.instruction]
        texts += [joined(text, loaded.columns) for text in loaded.train.texts[:N_TEXTS]]
    return tiny_encoder(folder / "encoder", texts), tiny_decoder(folder / "decoder", texts)


def _save(folder: Path, model: Any, tokenizer: Any) -> Path:
    with quiet_libraries():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _word_pieces(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [_PAD, _UNKNOWN, _START, _BREAK, _MASK]
    made = Tokenizer(models.WordPiece(unk_token=_UNKNOWN))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=1000, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.BertProcessing(
        (_BREAK, made.token_to_id(_BREAK)), (_START, made.token_to_id(_START))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token=_PAD,
        unk_token=_UNKNOWN,
        cls_token=_START,
        sep_token=_BREAK,
        mask_token=_MASK,
        model_max_length=128,
    )


def _byte_pairs(texts: Sequence[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[_PAD, _END, *_TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=_PAD, eos_token=_END, additional_special_tokens=_TURNS
    )
