"""Fine-tuning and LoRA learn, keep their best epoch, repeat, and leave nothing behind."""

from __future__ import annotations

import tempfile
from operator import attrgetter

import numpy as np
import pytest

from benchmarks.matrix.config import FineTuneColumn, LoraColumn
from benchmarks.matrix.history import best_epoch
from benchmarks.matrix.methods.fine_tune import FineTune
from benchmarks.matrix.methods.lora import Lora
from benchmarks.matrix.methods.training import notes_of, train
from benchmarks.matrix.tasks import Rows
from benchmarks.matrix.tiny import tiny_decoder, tiny_encoder
from red_ray.encoding.quiet import quiet_libraries
from tests.unit.benchmarks.matrix.toy import corpus, toy_rows, toy_task

REPORT = toy_rows(20, start=100)
KEYS = {"epoch", "train_loss", "select_loss", "select_accuracy"}


@pytest.fixture(scope="module")
def task():
    return toy_task()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, task):
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder"), corpus(task)))


@pytest.fixture(scope="module")
def decoder(tmp_path_factory, task):
    return str(tiny_decoder(tmp_path_factory.mktemp("decoder"), corpus(task), is_chat=True))


def fine_tune(model, task, seed=0, **settings):
    chosen = {"epochs": 3, "learning_rate": 8e-3, "batch_size": 8} | settings
    return FineTune(FineTuneColumn(name="t", method="fine_tune", model=model, **chosen)).fit(
        task, seed
    )


def lora(model, task, seed=0, **settings):
    chosen = {"epochs": 4, "learning_rate": 3e-2, "batch_size": 8, "dropout": 0.0} | settings
    column = LoraColumn(name="l", method="lora", model=model, max_new_tokens=4, **chosen)
    return Lora(column).fit(task, seed)


def _accuracy(fitted, rows, batch_size=8):
    return float(np.mean(fitted.predict(rows.texts, batch_size).labels == rows.labels))


@pytest.fixture(scope="module")
def tuned(encoder, task):
    return fine_tune(encoder, task)


@pytest.fixture(scope="module")
def adapted(decoder, task):
    return lora(decoder, task)


def _upside_down(n):
    """Rows held back whose labels are the wrong ones: the more is learned, the worse they go."""
    rows = toy_rows(n, start=70)
    return Rows(rows.texts, 1 - rows.labels)


def test_fine_tuning_learns_what_its_rows_say(tuned):
    assert _accuracy(tuned, REPORT) >= 0.9
    assert tuned.history[-1]["train_loss"] < tuned.history[1]["train_loss"]


def test_lora_learns_what_its_rows_say_and_answers_in_words(adapted):
    assert adapted.history[0]["select_accuracy"] < 0.5  # nonsense, of which most is unreadable
    assert _accuracy(adapted, REPORT) >= 0.9
    assert set(adapted.predict(REPORT.texts, 8).raw) == {"negative", "positive"}


def test_history_begins_before_the_training(tuned, adapted):
    for fitted in (tuned, adapted):
        assert [entry["epoch"] for entry in fitted.history] == list(range(len(fitted.history)))
        assert set(fitted.history[0]) == KEYS - {"train_loss"}
        assert all(set(entry) == KEYS for entry in fitted.history[1:])


def test_the_weights_are_those_of_the_best_epoch_not_of_the_last(encoder):
    task = toy_task(select=_upside_down(12))
    fitted = fine_tune(encoder, task, epochs=4)
    accuracies = [entry["select_accuracy"] for entry in fitted.history[1:]]
    assert max(accuracies) > accuracies[-1] == 0.0
    assert _accuracy(fitted, task.select) == pytest.approx(max(accuracies))
    assert fitted.notes[0].startswith(f"epoch {1 + int(np.argmax(accuracies))} of 4 was kept")


def test_lora_keeps_the_adapter_of_its_best_epoch(decoder):
    task = toy_task(n_train=24, select=_upside_down(8))
    fitted = lora(decoder, task, epochs=6)
    kept = fitted.history[best_epoch(fitted.history)]
    held = fitted._asker.labelled(task.select)
    assert kept["epoch"] < 6
    assert _accuracy(fitted, task.select) == pytest.approx(kept["select_accuracy"])
    assert fitted._asker.loss(held, 8) == pytest.approx(kept["select_loss"], rel=1e-3)


def test_training_stops_when_the_rows_held_back_gain_nothing(encoder):
    fitted = fine_tune(encoder, toy_task(select=_upside_down(12)), epochs=9, patience=1)
    best = best_epoch(fitted.history)
    assert len(fitted.history) - 1 == best + 1 < 9


@pytest.mark.parametrize("kind", ["fine_tune", "lora"])
def test_learning_anew_takes_all_rows_and_the_best_count_of_epochs(
    kind, encoder, decoder, monkeypatch
):
    learned = []

    def watched(training):
        learned.append((training.column.epochs, len(training.rows), training.measure))
        return train(training)

    monkeypatch.setattr("benchmarks.matrix.methods.training.train", watched)
    task = toy_task(n_train=24, select=_upside_down(8))
    fit, model = {"fine_tune": (fine_tune, encoder), "lora": (lora, decoder)}[kind]
    plain, fitted = (fit(model, task, refit=refit) for refit in (False, True))
    assert fitted.history == plain.history
    best = best_epoch(fitted.history)
    assert learned == [(best, 32, None)]
    assert fitted.notes[0].endswith(f"then it learned anew, {best} epochs of all rows")
    assert fitted.n_trained == plain.n_trained
    # The rows held back say the contrary, and it has learned them, too.
    assert _accuracy(fitted, task.everything) >= _accuracy(plain, task.everything)


@pytest.mark.parametrize(
    ("figures", "best"),
    [
        ([(0.9, 0.1), (0.5, 0.3), (0.6, 0.4), (0.6, 0.3)], 3),  # the untrained model is not chosen
        ([(0.0, 9.0), (0.6, 0.3), (0.6, 0.3)], 1),
        ([(0.0, 9.0), (0.6, float("nan")), (0.6, 0.7)], 2),
    ],
)
def test_best_is_the_most_accurate_epoch_then_the_one_with_the_least_loss(figures, best):
    history = [
        {"epoch": epoch, "select_accuracy": accuracy, "select_loss": loss}
        for epoch, (accuracy, loss) in enumerate(figures)
    ]
    assert best_epoch(history) == best


def test_a_training_without_a_gain_says_so():
    before = {"epoch": 0, "select_loss": 0.7, "select_accuracy": 0.6}
    after = {"epoch": 1, "train_loss": 0.5, "select_loss": 0.6, "select_accuracy": 0.6}
    kept = "epoch 1 of 1 was kept: 60.0 % right of the rows held back of train"
    none = "no gain on the rows held back: before the training 60.0 % of them were right"
    assert notes_of([before, after], is_refit=False) == [kept, none]
    better = {**before, "select_accuracy": 0.5}
    assert notes_of([better, after], is_refit=False) == [kept]


def test_the_same_seed_gives_the_same_model_and_another_one_does_not(encoder, decoder):
    task = toy_task(n_train=8, n_select=4)
    runs = [fine_tune(encoder, task, seed, epochs=1).history for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    asked = [lora(decoder, task, seed, epochs=1).history for seed in (3, 3, 4)]
    assert asked[0] == asked[1] != asked[2]


def test_a_pair_is_read_with_both_of_its_parts(tmp_path):
    task = toy_task(columns=2)
    fitted = fine_tune(str(tiny_encoder(tmp_path, corpus(task))), task, epochs=1)
    ids = fitted._coder.encode([("the film", "the plot")])["input_ids"][0]
    assert fitted._coder.tokenizer.decode(ids) == "[CLS] the film [SEP] the plot [SEP]"


def test_answers_do_not_depend_on_the_batch(tuned):
    texts = [*REPORT.texts, ("bad",), ("the cast is good " * 5,)]
    found = [tuned.predict(texts, size).labels.tolist() for size in (1, 7, 32)]
    assert found[0] == found[1] == found[2]
    assert tuned.predict([], 8).labels.tolist() == []


def test_a_text_that_is_too_long_for_the_model_is_cut(tuned):
    assert tuned.predict([("film " * 900,)], 1).labels.shape == (1,)


def test_all_weights_of_fine_tuning_are_trained(tuned):
    assert tuned.n_trained == tuned.n_parameters > 20_000


def test_lora_counts_its_adapter_alone_and_leaves_the_base_as_it_was(adapted, decoder):
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(decoder)
    assert adapted.n_parameters - adapted.n_trained == sum(p.numel() for p in base.parameters())
    # rank 8 x (in + out) of q, k, v, o (32 to 32 or 16), gate, up, down (32 and 64), two layers
    assert adapted.n_trained == 2 * 8 * (64 + 48 + 48 + 64 + 3 * 96)
    kept = adapted._asker.model.unload().state_dict()
    assert all(bool((kept[name] == one).all()) for name, one in base.state_dict().items())


def test_a_model_of_another_kind_is_adapted_in_all_its_linear_layers(tmp_path, task):
    folder = tiny_decoder(tmp_path, corpus(task), kind="olmo2")
    fitted = lora(str(folder), toy_task(n_train=8, n_select=4), epochs=1)
    assert fitted.n_trained == 2 * 8 * (64 + 48 + 48 + 64 + 3 * 96)


def test_a_saved_encoder_answers_as_before(tuned, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tuned.save(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = AutoTokenizer.from_pretrained(tmp_path)(
        [text for (text,) in REPORT.texts], padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        found = model(**batch).logits.argmax(-1).tolist()
    assert found == tuned.predict(REPORT.texts, 8).labels.tolist()
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_a_saved_adapter_answers_as_before_on_its_base(decoder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    fitted = lora(decoder, toy_task(n_train=16, n_select=4), epochs=2)
    before = fitted.predict(REPORT.texts, 8).raw
    fitted.save(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").exists()
    assert not list(tmp_path.glob("model*.safetensors"))
    asker = fitted._asker
    asker.model = AutoModelForCausalLM.from_pretrained(decoder).eval()
    assert asker.answer(REPORT.texts, 8).raw != before
    with quiet_libraries():
        asker.model = PeftModel.from_pretrained(asker.model, str(tmp_path)).eval()
    assert asker.answer(REPORT.texts, 8).raw == before


def test_in_bfloat16_what_is_trained_stays_in_float32(encoder, decoder):
    import torch

    task = toy_task(n_train=8, n_select=4)
    for fitted, model in (
        (fine_tune(encoder, task, epochs=1, dtype="bfloat16"), "model"),
        (lora(decoder, task, epochs=1, dtype="bfloat16"), "_asker.model"),
    ):
        trained = [one for one in attrgetter(model)(fitted).parameters() if one.requires_grad]
        assert {one.dtype for one in trained} == {torch.float32}
        assert fitted.predict(REPORT.texts, 8).labels.shape == (20,)


def test_no_checkpoint_is_left_and_nothing_is_printed(encoder, task, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    fitted = fine_tune(encoder, toy_task(n_train=8, n_select=4), epochs=1)
    fitted.save(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert capfd.readouterr() == ("", "")
    fitted.close()
