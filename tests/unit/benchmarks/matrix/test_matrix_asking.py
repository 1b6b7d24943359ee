"""What a language model is told and shown, what is cut, and what counts in a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.matrix.config import LoraColumn, PromptColumn
from benchmarks.matrix.methods.asking import Prompt, draw_examples, open_asker
from benchmarks.matrix.tasks import Rows
from benchmarks.matrix.tiny import tiny_decoder
from red_ray.errors import ConfigError
from tests.unit.benchmarks.matrix.toy import corpus, toy_rows, toy_task


@pytest.fixture(scope="module")
def task():
    return toy_task()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, task):
    return str(tiny_decoder(tmp_path_factory.mktemp("plain"), corpus(task)))


@pytest.fixture(scope="module")
def chat(tmp_path_factory, task):
    return str(tiny_decoder(tmp_path_factory.mktemp("chat"), corpus(task), is_chat=True))


def _column(model, method="zero_shot", **settings):
    return PromptColumn(name="asked", method=method, model=model, **settings)


def test_the_text_stands_last_and_as_it_is(task):
    odd = "  two\n\nlines, and 'quotes' "
    examples = draw_examples(task, 2, seed=0)
    told = Prompt("Do it.", ("negative", "positive"), ("text",), examples, cue="").of((odd,), 2)
    assert told.startswith("Do it.\n")
    assert told.endswith(f"text: {odd}")
    assert [told.count(f"- {word}\n") for word in task.words] == [1, 1]
    shown = f"text: {examples[0].text[0]}\nAnswer: {examples[0].word}\n\ntext: "
    assert shown in told


def test_a_pair_is_asked_about_with_the_names_of_its_parts():
    told = Prompt("Do it.", ("a", "b"), ("premise", "hypothesis"), (), "Answer:").of(("x", "y"), 0)
    assert told.endswith("premise: x\nhypothesis: y\nAnswer:")


def test_examples_are_of_each_label_first_then_round_robin(task):
    rows = task.train.take([1, 3, 5, 7, 9, 11, 0, 2])  # six positive rows, two negative ones
    few = replace(task, train=rows)
    words = [one.word for one in draw_examples(few, 6, seed=1)]
    assert set(words[:2]) == set(words[2:4]) == {"negative", "positive"}
    assert words[4:] == ["positive", "positive"]
    assert len({one.text for one in draw_examples(few, 99, seed=1)}) == 8


def test_examples_depend_on_the_seed_alone_and_come_from_train(task):
    first = [draw_examples(task, 5, seed) for seed in (0, 0, 1)]
    assert first[0] == first[1] != first[2]
    label_of = dict(zip(task.train.texts, task.train.labels, strict=True))
    assert all(task.words[label_of[one.text]] == one.word for one in first[0])


def test_a_chat_model_is_asked_in_its_template_and_a_plain_one_is_cued(plain, chat, task):
    in_turns = open_asker(_column(chat), task).asked(("the film",))
    assert in_turns.startswith("<|user|>Is the text")
    assert in_turns.endswith("text: the film<|end|><|assistant|>")
    assert open_asker(_column(plain), task).asked(("the film",)).endswith("text: the film\nAnswer:")


def test_an_answer_does_not_depend_on_its_company(chat, task):
    """Padding stands before the prompt, so that a text is answered alike alone and in a batch."""
    asker = open_asker(_column(chat, max_new_tokens=6), task)
    texts = [("bad",), ("the film is good as was the story and all of the cast",), ("a song",)]
    together, alone = asker.answer(texts, 3), asker.answer(texts, 1)
    assert together.raw == alone.raw
    assert len(set(alone.raw)) > 1
    assert together.labels.tolist() == alone.labels.tolist()


def test_a_plain_answer_ends_before_the_model_goes_on_with_texts_of_its_own(
    plain, task, monkeypatch
):
    asker = open_asker(_column(plain), task)
    said = " positive\n\ntext: another\nAnswer: negative"
    monkeypatch.setattr(asker.tokenizer, "batch_decode", lambda *_, **__: [said])
    answers = asker.answer([("the film",)], 1)
    assert answers.raw == ("positive",)
    assert answers.labels.tolist() == [1]


def test_a_long_prompt_loses_examples_first_then_the_middle_of_its_text(chat, task):
    examples = draw_examples(task, 5, seed=0)
    asker = open_asker(_column(chat, "few_shot", max_tokens=150), task, examples)
    short, long = ("the film is good " * 12,), ("start " + "the film is good " * 80 + "end",)
    assert "start" in asker.asked(long)
    assert asker.asked(long).endswith("end<|end|><|assistant|>")
    assert " … " in asker.asked(long)
    assert 0 < asker.asked(short).count("Answer: ") < 5
    assert [len(asker._tokens(asker.asked(one))) <= 150 for one in (short, long)] == [True, True]
    assert asker.notes[1:] == [
        "1 texts were too long for all examples: shown fewer",
        "1 texts were too long and lost their middle",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 1}, r"max_new_tokens: 1 is too few to write '.+', which takes \d+"),
        (
            {"max_tokens": 8, "max_new_tokens": 20},
            "max_tokens: 8 tokens do not hold the prompt without a text",
        ),
    ],
)
def test_limits_that_cannot_work_are_told(chat, task, settings, message):
    long_words = replace(task, words=("no label of these at all", "positive"))
    with pytest.raises(ConfigError, match=message):
        open_asker(_column(chat, **settings), long_words).asked(("a text",))


@pytest.mark.parametrize("kind", ["plain", "chat"])
def test_only_the_answer_counts_in_a_training(kind, task, request):
    model = request.getfixturevalue(kind)
    asker = open_asker(LoraColumn(name="lora", method="lora", model=model), task)
    row = asker.labelled(Rows(task.train.texts[:1], np.array([1])))[0]
    counted = [token for token in row["labels"] if token != -100]
    assert asker.tokenizer.decode(counted).strip() == "positive<|end|>"
    assert row["input_ids"][-len(counted) :] == counted
    asked = asker.tokenizer.decode(row["input_ids"][: -len(counted)])
    assert asked == asker.asked(task.train.texts[0])


def test_padding_does_not_change_a_loss(chat, task):
    asker = open_asker(_column(chat), task)
    rows = asker.labelled(toy_rows(3)) + asker.labelled(Rows((("x" * 60,),), np.array([0])))
    assert asker.loss(rows, 4) == pytest.approx(asker.loss(rows, 1), rel=1e-4)
