"""A user's mistake: exit 2, one clear line on stderr, no traceback, nothing half-written."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.running import said, tree, write_rows


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def refused(red_ray, train_file, out):
    """Trains with what a test adds, which must be a mistake that is found before Ray starts."""

    def check(*args, words=(), train=train_file):
        line = said(red_ray("train", "--train", train, "--out", out, *args), 2, *words)
        assert not out.exists()
        return line

    return check


# --- files -------------------------------------------------------------------------------------


def bad_file(tmp_path, kind):
    path = tmp_path / "bad.csv"
    if kind == "missing":
        return tmp_path / "nowhere.csv"
    if kind == "in no folder":
        return tmp_path / "no" / "where.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no rows":
        path.write_text("text,label\n")
    elif kind == "latin-1":
        path.write_bytes("text,label\nwo ist meine Rückzahlung,refund\n".encode("latin-1"))
    elif kind == "no text column":
        path.write_text("body,label\nhello,greeting\n")
    elif kind == "unknown extension":
        path = path.with_suffix(".doc")
        path.write_text("text,label\nhello,greeting\n")
    return path


FILES = {
    "missing": ("there is no file", "nowhere.csv"),
    "in no folder": ("there is no folder",),
    "folder": ("bad.csv",),
    "empty": ("is empty (0 bytes)",),
    "no rows": ("no rows",),
    "latin-1": ("is not UTF-8", "iconv"),
    "no text column": ("has no column 'text'", "text_column"),
    "unknown extension": ("'.doc'", ".parquet"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_training_file_that_cannot_be_used(refused, tmp_path, kind):
    refused(train=bad_file(tmp_path, kind), words=FILES[kind])


@pytest.mark.parametrize("option", ["--pool", "--test"])
@pytest.mark.parametrize("kind", sorted(set(FILES) - {"no rows"}))
def test_another_file_that_cannot_be_used(refused, tmp_path, option, kind):
    refused(option, bad_file(tmp_path, kind), words=FILES[kind])


def test_a_test_file_without_labels(refused, tmp_path):
    test = write_rows(tmp_path / "test.csv", [["hello"]], "text")
    refused("--test", test, words=("has no column 'label'",))


def test_a_file_of_descriptions_without_any(refused, tmp_path):
    described = write_rows(tmp_path / "labels.csv", [["a"]], "label")
    refused("--descriptions", described, words=("has no column 'description'",))


def test_damaged_parquet(refused, tmp_path):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1 and no more")
    refused(train=path, words=("bad.parquet",))


def test_fewer_than_two_labels(refused, tmp_path):
    rows = write_rows(tmp_path / "one.csv", [["hello", "a"], ["good day", "a"]], "text", "label")
    refused(train=rows, words=("only the label 'a'", "at least two labels"))


def test_labels_that_all_have_one_row(refused, tmp_path):
    rows = write_rows(tmp_path / "single.csv", [["hello", "a"], ["bye", "b"]], "text", "label")
    refused(train=rows, words=("second row",))


def test_test_rows_that_all_stand_in_training(refused, train_file):
    refused("--test", train_file, words=("test rows stand in training",))


def test_out_of_scope_rows_without_test_rows(refused, train_file):
    refused("--oos", train_file, words=("--test",))


# --- configuration -----------------------------------------------------------------------------


def test_an_unknown_configuration_key(refused):
    """Defect 20: no key is dead, and one that does not exist is told."""
    refused(
        "--set", "loop.max_iteration=3", words=("unknown", "did you mean 'loop.max_iterations'")
    )


def test_an_unknown_key_of_a_file(refused, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("loop:\n  iterations: 3\n")
    refused("--config", config, words=("unknown configuration key 'loop.iterations'",))


def test_a_key_that_stands_twice(refused, tmp_path):
    """Defect 19."""
    config = tmp_path / "c.yaml"
    config.write_text("mode: speed\nseed: 1\nmode: balanced\n")
    refused("--config", config, words=("'mode' twice",))


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("loop.max_iterations", ("key=value",)),
        ("loop.max_iterations=many", ("loop.max_iterations", "'many'")),
        ("loop.max_iterations=0", ("loop.max_iterations", "got 0")),
        ("loop=[", ("not valid YAML",)),
        ("seed.deep=3", ("seed",)),
        ("mode=fast", ("mode", "'fast'")),
    ],
)
def test_an_assignment_that_does_not_fit(refused, assignment, words):
    refused("--set", assignment, words=words)


def test_a_configuration_file_that_is_not_there(refused, tmp_path):
    refused("--config", tmp_path / "c.yaml", words=("cannot read", "c.yaml"))


# --- the judge ---------------------------------------------------------------------------------


@pytest.fixture
def pool_file(tmp_path, corpus):
    return write_rows(tmp_path / "pool.csv", [[text] for text in corpus.pool], "text")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("oracle", ("unknown judge 'oracle'", "simulated:")),
        ("simulated:1.5", ("from 0 to 1",)),
        ("openai:model", ("openai:MODEL@BASE_URL",)),
        ("openai:m@http://judge.example/v1", ("OPENAI_API_KEY",)),
    ],
)
def test_a_judge_that_cannot_be_asked(refused, monkeypatch, pool_file, spec, words):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    refused("--pool", pool_file, "--judge", spec, words=("judge", *words))


def test_a_simulated_judge_of_a_pool_without_labels(refused, pool_file):
    refused(
        "--pool", pool_file, "--judge", "simulated:0.9", words=("needs the pool's true labels",)
    )


def test_an_unknown_judge_of_the_demo(red_ray, out):
    said(red_ray("demo", "--out", out, "--judge", "oracle"), 2, "unknown judge")
    assert not out.exists()


# --- places ------------------------------------------------------------------------------------


def test_an_output_below_a_file(red_ray, train_file):
    out = train_file / "out"
    before = train_file.read_bytes()
    said(red_ray("train", "--train", train_file, "--out", out), 2, "cannot write")
    assert train_file.read_bytes() == before


def test_an_output_that_is_a_file(red_ray, train_file, tmp_path):
    out = tmp_path / "a-file"
    out.write_text("mine")
    said(red_ray("train", "--train", train_file, "--out", out), 2, "no run folder")
    assert out.read_text() == "mine"


def test_an_output_folder_with_other_things(red_ray, train_file, tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.txt").write_text("mine")
    said(red_ray("train", "--train", train_file, "--out", out), 2, "no run folder")
    said(red_ray("demo", "--out", out), 2, "no run folder")
    assert tree(out) == {"chapter1.txt": b"mine"}


def test_a_finished_run_without_overwrite(red_ray, train_file, finished):
    before = tree(finished.path)
    said(red_ray("train", "--train", train_file, "--out", finished.path), 2, "--overwrite")
    assert tree(finished.path) == before


# --- runs and bundles --------------------------------------------------------------------------


@pytest.fixture
def commands(red_ray, test_file, tmp_path):
    """Each command that opens a run, on the run at a path."""
    target = tmp_path / "out.csv"
    calls = {
        "evaluate": ("--test", test_file),
        "classify": ("--input", test_file, "--output", target),
    }

    def call(verb, run):
        result = red_ray(verb, run, *calls.get(verb, ()))
        assert not target.exists()
        return result

    return call


@pytest.mark.parametrize("verb", ["evaluate", "classify", "report"])
def test_a_folder_that_is_no_run(commands, tmp_path, verb):
    folder = tmp_path / "empty"
    folder.mkdir()
    for path in (folder, tmp_path / "nowhere"):
        said(commands(verb, path), 2, "no finished run")
    assert tree(folder) == {}


@pytest.mark.parametrize("verb", ["evaluate", "classify"])
def test_a_bundle_with_a_changed_byte(commands, finished, verb):
    """Each file in turn; `provenance.json` is outside the id and holds nothing of the model."""
    names = [name for name in tree(finished.bundle) if name != "provenance.json"]
    assert len(names) >= 7
    for name in names:
        path = finished.bundle / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        before = tree(finished.path)
        said(commands(verb, finished.path), 2, name)
        assert tree(finished.path) == before
        path.write_bytes(whole)


def test_a_bundle_with_a_foreign_file(commands, finished):
    (finished.bundle / "experts" / "notes.txt").write_text("mine")
    said(commands("classify", finished.path), 2, "'experts/notes.txt' does not belong there")


def test_a_bundle_without_one_of_its_files(commands, finished):
    (finished.bundle / "examples.json").unlink()
    said(commands("classify", finished.path), 2, "'examples.json' is missing")


def test_a_bundle_of_another_format(commands, finished):
    manifest = finished.bundle / "manifest.json"
    content = json.loads(manifest.read_text()) | {"format": 99}
    manifest.write_text(json.dumps(content))
    said(commands("classify", finished.path), 2, "format 99")


@pytest.mark.parametrize("name", ["details.json", "iterations.jsonl"])
def test_a_run_with_a_damaged_record(commands, finished, name):
    (finished.path / name).write_text("{")
    said_line = commands("evaluate", finished.path)
    assert said_line.exit_code == 2
    assert "is damaged" in said_line.stderr.splitlines()[-1]
    assert "Traceback" not in said_line.stderr


@pytest.mark.parametrize(
    ("target", "words"),
    [("out.doc", "'.doc'"), ("no/where.csv", "there is no folder"), (".", "holds it")],
)
def test_an_output_table_that_cannot_be_written(
    red_ray, finished, test_file, tmp_path, target, words
):
    target = tmp_path / target
    said(red_ray("classify", finished.path, "--input", test_file, "--output", target), 2, words)


@pytest.mark.parametrize("kind", sorted(set(FILES) - {"folder"}))
def test_a_table_to_classify_that_cannot_be_used(red_ray, finished, tmp_path, kind):
    target = tmp_path / "done.csv"
    source = bad_file(tmp_path, kind)
    result = red_ray("classify", finished.path, "--input", source, "--output", target)
    said(result, 2, *FILES[kind])
    assert not list(tmp_path.glob("*done.csv*"))
