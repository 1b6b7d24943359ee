import errno
import json
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from red_ray.data.tables import TableWriter, iter_tables, read_table
from red_ray.data.writer import create_file
from red_ray.errors import OutputError, StorageError

KINDS = ["csv", "tsv", "jsonl", "parquet", "xlsx"]
TEXTS = ["a, b", 'say "hi"', "two\nlines", "🙂 日本", "nan", "=1+1"]


def table(texts=TEXTS, first=0):
    ids = pa.array(range(first, first + len(texts)), pa.int64())
    return pa.table({"id": ids, "text": pa.array(texts, pa.string())})


class Failing:
    """A file whose disk is full after `room` bytes, or fails otherwise."""

    def __init__(self, path, number, room=0):
        self._file = path.open("xb")
        self._number = number
        self._room = room

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(self._number, "it failed")
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def fail_with(number, room=0):
    return lambda path: Failing(path, number, room)


def write_all(path, tables, **options):
    with TableWriter(path, **options) as writer:
        for rows in tables:
            writer.write(rows)


def write_then_stop(path):
    with TableWriter(path) as writer:
        writer.write(table())
        raise RuntimeError("stop")


@pytest.mark.parametrize("kind", KINDS)
class TestEveryFormat:
    def test_tables_are_appended_and_read_back(self, tmp_path, kind):
        path = tmp_path / f"out.{kind}"
        with TableWriter(path) as writer:
            writer.write(table())
            writer.write(table(["last"], first=len(TEXTS)))
        assert read_table(path, text_column="text").texts == (*TEXTS, "last")
        ids = read_table(path, text_column="id").texts
        assert ids == tuple(str(n) for n in range(len(TEXTS) + 1))

    def test_a_stream_can_be_passed_through(self, tmp_path, kind):
        source, target = tmp_path / "in.jsonl", tmp_path / f"out.{kind}"
        rows = [{"text": f"text {n}", "n": n, "tags": ["x"]} for n in range(25)]
        source.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        with TableWriter(target) as writer:
            for chunk in iter_tables(source, text_column="text", chunk_rows=10):
                writer.write(chunk.append_column("label", [["y"] * chunk.num_rows]))
        back = read_table(target, text_column="text", label_column="label")
        assert back.texts == tuple(row["text"] for row in rows)
        assert set(back.labels) == {"y"}

    def test_the_target_appears_at_the_end_and_alone(self, tmp_path, kind):
        path = tmp_path / f"out.{kind}"
        with TableWriter(path) as writer:
            writer.write(table())
            assert not path.exists()
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    def test_an_error_in_the_block_leaves_the_target_as_it_was(self, tmp_path, kind):
        path = tmp_path / f"out.{kind}"
        path.write_bytes(b"precious")
        with pytest.raises(RuntimeError, match="stop"):
            write_then_stop(path)
        assert path.read_bytes() == b"precious"
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    def test_a_full_disk_is_a_storage_error_and_leaves_nothing(self, tmp_path, kind, share):
        path = tmp_path / f"out.{kind}"
        tables = [table([f"{n} " + "text " * 50 for n in range(200)])] * 3
        write_all(path, tables)
        whole = path.read_bytes()
        full = fail_with(errno.ENOSPC, room=int(len(whole) * share))
        with pytest.raises(StorageError, match="No space left on device; make room") as e:
            write_all(path, tables, create=full)
        assert "\n" not in str(e.value)
        assert path.read_bytes() == whole
        assert list(tmp_path.iterdir()) == [path]

    def test_another_failure_to_write_is_an_output_error(self, tmp_path, kind):
        path = tmp_path / f"out.{kind}"
        writer = TableWriter(path, create=fail_with(errno.EPERM))
        with (
            pytest.raises(
                OutputError, match=r"cannot write .*: Operation not permitted; check the place"
            ),
            writer,
        ):
            writer.write(table())
        assert list(tmp_path.iterdir()) == []

    def test_without_a_table_no_file_is_made(self, tmp_path, kind):
        with TableWriter(tmp_path / f"out.{kind}"):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_table_without_rows_gives_a_file(self, tmp_path, kind):
        path = tmp_path / f"out.{kind}"
        with TableWriter(path) as writer:
            writer.write(table([]))
        assert path.exists()

    def test_another_schema_is_refused(self, tmp_path, kind):
        path = tmp_path / f"out.{kind}"
        with pytest.raises(ValueError, match="differs from the first"):
            write_all(path, [table(), pa.table({"other": [1]})])
        assert not path.exists()


class TestPlace:
    @pytest.mark.parametrize("name", ["out.txt", "out", "out.csv.gz"])
    def test_an_unknown_extension(self, tmp_path, name):
        with pytest.raises(OutputError, match=r"not one of \.csv, \.tsv, \.jsonl"):
            TableWriter(tmp_path / name)

    def test_a_folder_that_does_not_exist(self, tmp_path):
        with (
            pytest.raises(OutputError, match=r"there is no folder .*; create it first"),
            TableWriter(tmp_path / "no" / "out.csv"),
        ):
            pass

    def test_a_folder_in_place_of_the_file(self, tmp_path):
        (tmp_path / "out.csv").mkdir()
        with (
            pytest.raises(OutputError, match="it is a folder; name a file"),
            TableWriter(tmp_path / "out.csv"),
        ):
            pass

    def test_a_place_that_may_not_be_written(self, tmp_path):
        def refuse(path):
            raise PermissionError(errno.EACCES, "Permission denied")

        with (
            pytest.raises(OutputError, match="Permission denied; check the place"),
            TableWriter(tmp_path / "out.csv", create=refuse),
        ):
            pass

    def test_a_full_disk_at_the_opening(self, tmp_path):
        def refuse(path):
            raise OSError(errno.ENOSPC, "No space left on device")

        with (
            pytest.raises(StorageError, match="No space left"),
            TableWriter(tmp_path / "out.csv", create=refuse),
        ):
            pass

    def test_behind_a_link_the_file_is_replaced(self, tmp_path):
        target, link = tmp_path / "real.csv", tmp_path / "link.csv"
        target.write_text("old")
        link.symlink_to(target)
        with TableWriter(link) as writer:
            writer.write(table(["new"]))
        assert link.is_symlink()
        assert read_table(target, text_column="text").texts == ("new",)

    def test_the_file_has_the_usual_permissions(self, tmp_path):
        with TableWriter(tmp_path / "out.csv") as writer:
            writer.write(table())
        usual = tmp_path / "usual"
        usual.touch()
        assert (tmp_path / "out.csv").stat().st_mode == usual.stat().st_mode

    def test_the_hidden_file_lies_beside_the_target(self, tmp_path):
        seen: list[Path] = []

        def create(path):
            seen.append(path)
            return create_file(path)

        with TableWriter(tmp_path / "out.csv", create=create):
            assert seen[0].parent == tmp_path
            assert seen[0].name.startswith(".out.csv.")
            assert seen[0].exists()

    def test_writing_needs_the_block(self, tmp_path):
        writer = TableWriter(tmp_path / "out.csv")
        with pytest.raises(ValueError, match="inside its `with` block"):
            writer.write(table())


class TestContent:
    def test_null_and_empty_stay_apart_in_jsonl_and_parquet(self, tmp_path):
        for kind in ("jsonl", "parquet"):
            with TableWriter(tmp_path / f"out.{kind}") as writer:
                writer.write(table(["a", "", None]))
            back = read_table(tmp_path / f"out.{kind}", text_column="text")
            assert back.texts == ("a", "", None)

    def test_jsonl_is_plain_utf8_and_knows_no_nan(self, tmp_path):
        path = tmp_path / "out.jsonl"
        with TableWriter(path) as writer:
            writer.write(pa.table({"t": ["é"], "x": [float("nan")], "l": [[1.5, float("inf")]]}))
        assert path.read_text(encoding="utf-8") == '{"t": "é", "x": null, "l": [1.5, null]}\n'

    def test_nested_values_are_json_in_a_cell(self, tmp_path):
        nested = pa.table(
            {
                "text": pa.array(["é"], pa.string_view()),
                "tags": [["x", "é"]],
                "box": [{"a": None}],
                "gap": pa.array([None], pa.list_(pa.int64())),
            }
        )
        for kind in ("csv", "tsv", "xlsx"):
            path = tmp_path / f"out.{kind}"
            with TableWriter(path) as writer:
                writer.write(nested)
            (back,) = iter_tables(path, text_column="text", chunk_rows=9)
            assert back.to_pylist() == [
                {"text": "é", "tags": '["x", "é"]', "box": '{"a": null}', "gap": ""}
            ]

    def test_parquet_keeps_nested_values(self, tmp_path):
        path = tmp_path / "out.parquet"
        with TableWriter(path) as writer:
            writer.write(pa.table({"tags": [["x"]]}))
        assert pq.read_table(path).to_pylist() == [{"tags": ["x"]}]

    def test_xlsx_never_runs_a_text_as_a_formula(self, tmp_path):
        path = tmp_path / "out.xlsx"
        with TableWriter(path) as writer:
            writer.write(pa.table({"=head": ["=1+1", "#N/A"]}))
        sheet = openpyxl.load_workbook(path).active
        assert [[cell.data_type for cell in row] for row in sheet.iter_rows()] == [["s"]] * 3
        assert sheet["A2"].value == "=1+1"

    def test_xlsx_keeps_numbers_but_for_those_that_excel_would_change(self, tmp_path):
        path = tmp_path / "out.xlsx"
        numbers = pa.table({"n": [5, 2**60 + 1], "x": [0.5, float("nan")], "b": [True, None]})
        with TableWriter(path) as writer:
            writer.write(numbers)
        rows = list(openpyxl.load_workbook(path).active.iter_rows(values_only=True))
        assert rows == [("n", "x", "b"), (5, 0.5, True), ("1152921504606846977", None, None)]

    def test_xlsx_adapts_what_excel_cannot_hold(self, tmp_path):
        path = tmp_path / "out.xlsx"
        with TableWriter(path) as writer:
            writer.write(table(["bell\x07", "x" * 40_000]))
        texts = read_table(path, text_column="text").texts
        assert texts == ("bell", "x" * 32_767)

    def test_xlsx_refuses_more_rows_than_a_sheet_holds(self, tmp_path):
        path = tmp_path / "out.xlsx"
        with pytest.raises(OutputError, match="at most 1048576 rows"), TableWriter(path) as w:
            w.write(pa.table({"n": pa.array(range(1_048_576), pa.int32())}))
        assert list(tmp_path.iterdir()) == []
