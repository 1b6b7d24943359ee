"""Fine-tuning: the same bits each time, the upper layers alone, labels drawn together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from red_ray.config import EncoderConfig, SetFitConfig
from red_ray.encoding import (
    PairedEncoder,
    SentenceEncoder,
    TunedWeights,
    TuningRows,
    tune_once,
    tuned_store,
    tuning,
)
from red_ray.encoding.resolve import resolve_spec
from red_ray.encoding.tuning import (
    CANDIDATES,
    contrastive_loss,
    draw_batch,
    n_steps,
    nearest_labels,
    tune,
    tuning_key,
)
from red_ray.errors import EncoderError

SETTINGS = SetFitConfig(layers=1, min_steps=25, max_steps=25, learning_rate=2e-3)
ARRIVAL = ("where is my card", "my card did not arrive", "is my card here yet", "card where")
TOP_UP = ("how do i top up", "top up how", "do i top it up", "up to the top ?")
TEXTS = (*ARRIVAL, *TOP_UP)
LABELS = np.repeat([0, 1], 4)


@pytest.fixture
def rows(config: EncoderConfig) -> TuningRows:
    with SentenceEncoder.load(config, n_threads=1) as encoder:
        return TuningRows(TEXTS, LABELS, encoder.encode(TEXTS))


def apart(vectors: np.ndarray) -> float:
    """How much more alike texts of one label are than texts of two, in cosine."""
    cosine, alike = vectors @ vectors.T, LABELS[:, None] == LABELS
    others = ~np.eye(len(LABELS), dtype=bool)
    return float(cosine[alike & others].mean() - cosine[~alike].mean())


def test_the_labels_move_apart_and_the_bits_are_the_same_each_time(config, rows):
    weights = tune(config, rows, SETTINGS, seed=1)
    assert tune(config, rows, SETTINGS, seed=1) == weights
    assert tune(config, rows, SETTINGS, seed=2) != weights
    with SentenceEncoder.load(config, n_threads=1, tuned=weights) as encoder:
        tuned = encoder.encode(TEXTS)
    assert apart(tuned) > apart(rows.vectors) + 0.1


def test_threads_do_not_disturb_each_other(config, rows):
    with ThreadPoolExecutor(2) as threads:
        tuned = list(
            threads.map(lambda seed: tune(config, rows, SETTINGS, seed=seed), (1, 2, 1, 2))
        )
    assert tuned[:2] == tuned[2:]
    assert tuned[0] == tune(config, rows, SETTINGS, seed=1)


def test_only_the_upper_layers_are_kept(config, rows):
    from safetensors.torch import load

    names = load(tune(config, rows, SETTINGS, seed=1).tensors)
    assert names
    assert all(name.startswith("encoder.layer.1.") for name in names)
    assert {tensor.dtype for tensor in names.values()} == {torch.bfloat16}
    both = load(tune(config, rows, SETTINGS.model_copy(update={"layers": 9}), seed=1).tensors)
    assert {name.split(".")[2] for name in both} == {"0", "1"}


def test_a_tuned_encoder_is_another_one(config, rows):
    weights = tune(config, rows, SETTINGS, seed=1)
    with (
        SentenceEncoder.load(config, n_threads=1) as plain,
        SentenceEncoder.load(config, n_threads=1, tuned=weights) as tuned,
    ):
        assert plain.spec.key != tuned.spec.key
        pair = PairedEncoder(plain, tuned)
        vectors = pair.encode(TEXTS)
        np.testing.assert_array_equal(vectors[:, :64], plain.encode(TEXTS))
        np.testing.assert_array_equal(vectors[:, 64:], tuned.encode(TEXTS))
        assert pair.spec == plain.spec


def test_weights_of_another_model_are_refused(config):
    from safetensors.torch import save

    foreign = TunedWeights(save({"encoder.layer.77.x": torch.zeros(2)}))
    with pytest.raises(EncoderError, match="of another encoder"):
        SentenceEncoder.load(config, n_threads=1, tuned=foreign)
    misfit = TunedWeights(save({"encoder.layer.1.output.dense.bias": torch.zeros(2)}))
    with pytest.raises(EncoderError, match="do not fit the encoder"):
        SentenceEncoder.load(config, n_threads=1, tuned=misfit)


MORE = ("my card , is it here", "did the card arrive", "top up with what", "how to top it up")


def tensors(weights):
    from safetensors.torch import load

    return {name: tensor.tolist() for name, tensor in load(weights.tensors).items()}


def test_rows_that_steps_help_to_the_end_change_nothing(config, rows):
    """They are looked at and not learned, and a look draws no dropout."""
    watched = replace(rows, watched=(MORE, np.array([0, 0, 1, 1])))
    weights = tune(config, watched, SETTINGS, seed=1)
    assert weights.share == 1.0
    assert weights == tune(config, rows, SETTINGS, seed=1)


def test_it_stops_where_watched_rows_are_hurt(config, rows, monkeypatch):
    taken = []
    step = tuning._Tuner.step
    monkeypatch.setattr(tuning._Tuner, "step", lambda *a: taken.append(1) or step(*a))
    wrong = replace(rows, watched=(MORE, np.array([1, 1, 0, 0])))
    weights = tune(config, wrong, SETTINGS, seed=1)
    assert weights.share == 0.2
    assert len(taken) == 15, "two looks in vain after the best one, at five of 25 steps"
    taken.clear()
    short = tune(config, replace(rows, share=weights.share), SETTINGS, seed=1)
    assert len(taken) == 5
    assert tensors(short) == tensors(weights), "a fine-tuning of this share is the same"
    assert short.share == 1.0, "it was not watched"


def test_what_was_tuned_once_comes_from_the_store(config, rows, monkeypatch):
    weights = tune_once(config, rows, SETTINGS, seed=1)
    calls = []
    monkeypatch.setattr(tuned_store, "tune", lambda *_, seed: calls.append(seed) or weights)
    assert tune_once(config, rows, SETTINGS, seed=1) == weights
    assert calls == []
    tune_once(config, rows, SETTINGS, seed=2)
    assert calls == [2]
    for file in (Path(config.store) / "tuned").iterdir():
        file.write_bytes(file.read_bytes()[:100])  # cut short
    assert tune_once(config, rows, SETTINGS, seed=1) == weights
    assert calls == [2, 1]


def test_the_key_knows_all_that_decides(config, rows):
    spec = resolve_spec(config)
    others = [
        tuning_key(spec, rows, SETTINGS, 2),
        tuning_key(spec, rows, SETTINGS.model_copy(update={"layers": 2}), 1),
        tuning_key(spec, TuningRows(TEXTS[::-1], LABELS, rows.vectors), SETTINGS, 1),
        tuning_key(spec, TuningRows(TEXTS, 1 - LABELS, rows.vectors), SETTINGS, 1),
        tuning_key(spec, replace(rows, share=0.4), SETTINGS, 1),
        tuning_key(spec, replace(rows, watched=(MORE, LABELS[:4])), SETTINGS, 1),
        tuning_key(spec, replace(rows, watched=(MORE, 1 - LABELS[:4])), SETTINGS, 1),
        tuning_key(spec, rows, SETTINGS, 1),
    ]
    assert len(set(others)) == len(others)


def test_the_loss_is_the_supervised_contrastive_one():
    vectors = torch.nn.functional.normalize(torch.randn(5, 8, generator=seeded()), dim=1)
    labels, temperature = torch.tensor([0, 0, 1, 1, 2]), 0.3
    expected = []
    for i in range(4):  # the last one is alone of its label
        cosines = (vectors @ vectors[i] / temperature).tolist()
        total = sum(np.exp(cosines[j]) for j in range(5) if j != i)
        (mate,) = [j for j in range(5) if j != i and labels[j] == labels[i]]
        expected.append(-np.log(np.exp(cosines[mate]) / total))
    found = float(contrastive_loss(vectors, labels, temperature))
    assert found == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_batch_without_two_of_a_label_has_no_loss():
    vectors = torch.eye(3, requires_grad=True)
    loss = contrastive_loss(vectors, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not vectors.grad.any()


def test_near_labels_meet_in_a_batch_and_sizes_are_kept():
    rng = np.random.default_rng(0)
    rows_of = [np.arange(10 * label, 10 * label + 10) for label in range(99)]
    rows_of.append(np.array([990]))
    near = np.array(
        [[(label + step) % 100 for step in range(1, CANDIDATES + 1)] for label in range(100)]
    )
    settings = SetFitConfig(labels_per_batch=6, texts_per_label=3)
    neighbours = 0
    for _ in range(200):
        batch = draw_batch(rows_of, near, settings, rng)
        labels, counts = np.unique(batch // 10, return_counts=True)
        assert len(labels) == 6
        assert all(n == (1 if label == 99 else 3) for label, n in zip(labels, counts, strict=True))
        assert len(set(batch.tolist())) == len(batch)
        neighbours += int((np.diff(labels) <= CANDIDATES).sum())
    assert neighbours / (200 * 5) > 0.5  # of labels drawn alone a fifth would be


def test_nearest_labels_are_found_by_their_means():
    vectors = np.array([[1, 0], [1, 0.1], [0.9, 0.3], [0, 1]], dtype=np.float32)
    np.testing.assert_array_equal(
        nearest_labels(vectors, np.array([0, 0, 1, 2])), [[1, 2], [0, 2], [1, 0]]
    )


@pytest.mark.parametrize(("n_rows", "expected"), [(10, 60), (770, 120), (1_000_000, 400)])
def test_the_steps_grow_with_the_rows_within_bounds(n_rows, expected):
    assert n_steps(n_rows, SetFitConfig(epochs=10, min_steps=60, max_steps=400)) == expected


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
