import csv
import datetime
import json
import os
import socket
import zipfile
from decimal import Decimal

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from red_ray.data.tables import Table, iter_tables, read_table, texts_of
from red_ray.errors import DataError

ROWS = [
    ("Where is my card?", "card_arrival"),
    ('She said "no", twice', "complaint"),
    ("two\nlines", "complaint"),
    ("naïve café 🙂 日本", "other"),
    ("", "other"),
    ("nan", "None"),
    ("no label", ""),
    ("=1+1", "formula"),
]
EXPECTED = Table(texts=tuple(text for text, _ in ROWS), labels=tuple(label for _, label in ROWS))
FORMATS = ["csv", "tsv", "jsonl", "parquet", "xlsx", "folder"]


def write_delimited(path, rows, delimiter, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "text", "label"])
        writer.writerows([number, *row] for number, row in enumerate(rows))


def write_jsonl(path, rows):
    objects = [{"id": n, "text": text, "label": label} for n, (text, label) in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in objects), encoding="utf-8")


def write_parquet(path, rows, first_id=0):
    texts, labels = zip(*rows, strict=True)
    ids = range(first_id, first_id + len(rows))
    pq.write_table(pa.table({"id": ids, "text": texts, "label": labels}), path)


def write_xlsx(path, rows):
    book = openpyxl.Workbook()
    book.active.append(["id", "text", "label"])
    for number, (text, label) in enumerate(rows):
        book.active.append([number, None, None])
        for column, value in ((2, text), (3, label)):
            cell = book.active.cell(row=number + 2, column=column, value=value)
            cell.data_type = "s"
    book.save(path)
    book.close()


def write(folder, kind, rows=ROWS):
    path = folder / f"rows.{kind}"
    match kind:
        case "csv":
            write_delimited(path, rows, ",")
        case "tsv":
            write_delimited(path, rows, "\t")
        case "jsonl":
            write_jsonl(path, rows)
        case "parquet":
            write_parquet(path, rows)
        case "xlsx":
            write_xlsx(path, rows)
        case "folder":
            path.mkdir()
            write_parquet(path / "part-1.parquet", rows[3:], first_id=3)
            write_parquet(path / "part-0.parquet", rows[:3])
            (path / "_SUCCESS").touch()
    return path


def edit_sheet(path, old, new):
    """Change the XML of the first sheet, as a program other than ours would have written it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    assert old in parts[sheet]
    parts[sheet] = parts[sheet].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def save(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def read(path, **options):
    return read_table(path, **{"text_column": "text", "label_column": "label", **options})


def one_line(raised):
    message = str(raised.value)
    assert "\n" not in message
    return message


class TestSameRows:
    @pytest.mark.parametrize("kind", FORMATS)
    def test_every_format_gives_the_same_table(self, tmp_path, kind):
        assert read(write(tmp_path, kind)) == EXPECTED

    @pytest.mark.parametrize("kind", FORMATS)
    def test_labels_that_were_not_asked_for_are_none(self, tmp_path, kind):
        table = read_table(write(tmp_path, kind), text_column="text")
        assert table == Table(EXPECTED.texts, None)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_every_format_names_a_missing_column_and_those_found(self, tmp_path, kind):
        with pytest.raises(DataError, match=r"no column 'txt', only 'id', 'text', 'label'") as e:
            read(write(tmp_path, kind), text_column="txt")
        assert "did you mean 'text'?" in one_line(e)
        assert "set text_column" in one_line(e)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_a_label_column_that_may_lack_gives_none(self, tmp_path, kind):
        table = read(write(tmp_path, kind), label_column="topic", label_required=False)
        assert table == Table(EXPECTED.texts, None)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_a_label_column_that_is_required_may_not_lack(self, tmp_path, kind):
        with pytest.raises(DataError, match=r"no column 'topic'.*set label_column"):
            read(write(tmp_path, kind), label_column="topic")

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("chunk_rows", [1, 3, 8, 100])
    def test_streaming_keeps_all_columns_and_rows_in_order(self, tmp_path, kind, chunk_rows):
        path = write(tmp_path, kind)
        chunks = list(iter_tables(path, text_column="text", chunk_rows=chunk_rows))
        sizes = [chunk.num_rows for chunk in chunks]
        assert sum(sizes) == len(ROWS)
        assert set(sizes[:-1]) <= {chunk_rows}
        assert sizes[-1] <= chunk_rows
        whole = pa.concat_tables(chunks)
        assert whole.column_names == ["id", "text", "label"]
        assert [str(n) for n in whole["id"].to_pylist()] == [str(n) for n in range(len(ROWS))]
        assert tuple(texts_of(whole, "text")) == EXPECTED.texts

    @pytest.mark.parametrize("kind", FORMATS)
    def test_streaming_checks_the_column_before_the_first_chunk(self, tmp_path, kind):
        with pytest.raises(DataError, match="no column 'body'"):
            iter_tables(write(tmp_path, kind), text_column="body", chunk_rows=10)

    def test_an_extension_in_capitals_is_the_same_format(self, tmp_path):
        path = write(tmp_path, "csv").rename(tmp_path / "ROWS.CSV")
        assert read(path) == EXPECTED

    def test_a_path_may_be_a_string(self, tmp_path):
        assert read(str(write(tmp_path, "csv"))) == EXPECTED


class TestDelimited:
    def test_a_byte_order_mark_does_not_stick_to_the_first_column(self, tmp_path):
        path = tmp_path / "bom.csv"
        write_delimited(path, ROWS, ",", encoding="utf-8-sig")
        assert read(path) == EXPECTED
        assert read_table(path, text_column="id").texts[:2] == ("0", "1")

    def test_numbers_and_dates_stay_as_written(self, tmp_path):
        path = save(tmp_path, "n.csv", "text,label\n007,1.50\n2024-01-02,true\n")
        assert read(path) == Table(("007", "2024-01-02"), ("1.50", "true"))

    def test_empty_lines_are_no_rows(self, tmp_path):
        path = save(tmp_path, "gaps.csv", "\ntext,label\n\na,x\n\n\nb,y\n\n")
        assert read(path).texts == ("a", "b")

    def test_in_a_single_column_an_empty_line_is_an_empty_text(self, tmp_path):
        path = save(tmp_path, "one.csv", 'text\na\n\n"b"\n')
        assert read_table(path, text_column="text").texts == ("a", "", "b")

    def test_windows_line_ends(self, tmp_path):
        path = save(tmp_path, "crlf.csv", 'text,label\r\na,x\r\n"b\r\nc",y\r\n')
        assert read(path) == Table(("a", "b\r\nc"), ("x", "y"))

    def test_a_line_break_at_the_border_of_two_blocks(self, tmp_path):
        rows = [(f"line one of {n}\nline two, " + "x" * 300, "a") for n in range(40_000)]
        path = tmp_path / "large.csv"
        write_delimited(path, rows, ",")
        assert path.stat().st_size > 12 << 20
        assert read(path).texts == tuple(text for text, _ in rows)

    @pytest.mark.parametrize("row", ["a,b,c", "only-one"])
    def test_a_row_with_another_number_of_fields_is_named_without_its_text(self, tmp_path, row):
        path = save(tmp_path, "ragged.csv", f"text,label\ngood,x\n{row}\n")
        with pytest.raises(DataError, match=r"row 3 of .* does not have 2 fields") as e:
            read(path)
        assert row not in one_line(e)
        assert "double quotes" in one_line(e)

    def test_a_quote_that_is_never_closed(self, tmp_path):
        path = save(tmp_path, "quote.csv", 'text,label\n"open,x\nsecret,y\n')
        with pytest.raises(DataError, match="close every quote") as e:
            read(path)
        assert "secret" not in one_line(e)

    def test_a_quote_that_is_never_closed_in_a_large_file(self, tmp_path):
        path = save(tmp_path, "quote.csv", 'text,label\n"open,x\n' + "secret,y\n" * 2_000_000)
        with pytest.raises(DataError, match=r"more than 8 MiB.*never closed; close it") as e:
            read(path)
        assert "secret" not in one_line(e)

    @pytest.mark.parametrize("n_rows_before", [0, 1_000_000])
    def test_not_utf8_says_how_to_convert(self, tmp_path, n_rows_before):
        content = b"text,label\n" + b"plain ascii,x\n" * n_rows_before + b"caf\xe9,x\n"
        path = save(tmp_path, "latin.csv", content)
        with pytest.raises(DataError, match=r"not UTF-8.*iconv -f WINDOWS-1252 -t UTF-8") as e:
            read(path)
        assert "'latin.csv' > 'utf8-latin.csv'" in one_line(e)

    def test_a_row_that_is_neither_utf8_nor_complete(self, tmp_path):
        path = save(tmp_path, "both.csv", b"text,label\ncaf\xe9,x,y\n")
        with pytest.raises(DataError, match="not UTF-8"):
            read(path)

    def test_a_header_that_is_not_utf8(self, tmp_path):
        path = save(tmp_path, "latin.csv", b"text,th\xe9me\na,x\n")
        with pytest.raises(DataError, match="not UTF-8"):
            read(path)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf16_is_recognised(self, tmp_path, encoding):
        path = save(tmp_path, "wide.csv", "text,label\na,x\n".encode(encoding))
        with pytest.raises(DataError, match=r"not UTF-8.*iconv -f UTF-16 -t UTF-8"):
            read(path)

    def test_a_wrong_separator_is_recognised(self, tmp_path):
        path = save(tmp_path, "semicolon.csv", "text;label\na;x\n")
        with pytest.raises(DataError, match="the separator seems to be ';'"):
            read(path)

    def test_a_header_that_differs_in_case_and_space_is_suggested(self, tmp_path):
        path = save(tmp_path, "case.csv", " Text,Label\na,x\n")
        with pytest.raises(DataError, match="did you mean ' Text'"):
            read(path)

    def test_many_and_long_columns_are_cut_in_the_message(self, tmp_path):
        path = save(tmp_path, "wide.csv", ",".join(f"{n:03}{'x' * 99}" for n in range(50)) + "\n")
        with pytest.raises(DataError, match="and 38 more") as e:
            read(path)
        assert len(one_line(e)) < 900

    def test_two_columns_of_the_same_name_are_refused(self, tmp_path):
        path = save(tmp_path, "twice.csv", "text,label,text\na,x,b\n")
        with pytest.raises(DataError, match="2 columns named 'text'; rename"):
            read(path)

    @pytest.mark.parametrize("content", ["\n\n", "\n"])
    def test_nothing_but_empty_lines(self, tmp_path, content):
        with pytest.raises(DataError, match="holds no rows"):
            read(save(tmp_path, "blank.csv", content))

    def test_a_bad_row_further_down_is_raised_with_its_chunk(self, tmp_path):
        rows = [("x" * 300, "a")] * 60_000
        path = tmp_path / "late.csv"
        write_delimited(path, rows, ",")
        with path.open("a", encoding="utf-8") as file:
            file.write("one,two,three,four\n")
        chunks = iter_tables(path, text_column="text", chunk_rows=1000)
        assert next(chunks).num_rows == 1000
        with pytest.raises(DataError, match="row 60002 of"):
            list(chunks)


class TestJsonl:
    def test_a_broken_line_is_a_row_without_values(self, tmp_path):
        lines = ['{"text": "a", "label": "x"}', '{"text": "b", "la', "[1, 2]", '"c"', "5"]
        path = save(tmp_path, "broken.jsonl", "\n".join([*lines, '{"text": "d", "label": "y"}']))
        assert read(path) == Table(
            ("a", None, None, None, None, "d"), ("x", None, None, None, None, "y")
        )
        (chunk,) = iter_tables(path, text_column="text", chunk_rows=10)
        assert chunk.num_rows == 6
        assert chunk.slice(1, 1).to_pylist() == [{"text": None, "label": None}]

    def test_blank_lines_and_a_byte_order_mark_are_passed_over(self, tmp_path):
        path = save(tmp_path, "gaps.jsonl", '\ufeff{"text": "a", "label": "x"}\n\n  \n')
        assert read(path) == Table(("a",), ("x",))

    def test_null_nan_and_a_missing_key_are_no_value(self, tmp_path):
        rows = '{"text": null, "label": "x"}\n{"text": NaN, "label": "y"}\n{"label": "z"}\n'
        path = save(tmp_path, "null.jsonl", rows + '{"text": "nan", "label": null}\n')
        assert read(path) == Table((None, None, None, "nan"), ("x", "y", "z", None))

    def test_scalars_read_as_text(self, tmp_path):
        rows = '{"text": 5, "label": true}\n{"text": 1.0, "label": "x"}\n{"text": 2.5}\n'
        path = save(tmp_path, "scalars.jsonl", rows)
        assert read(path) == Table(("5", "1", "2.5"), ("true", "x", None))

    def test_a_list_is_no_text(self, tmp_path):
        rows = '{"text": ["a"], "label": {"b": 1}}\n{"text": "c", "label": "d"}\n'
        assert read(save(tmp_path, "lists.jsonl", rows)) == Table((None, "c"), (None, "d"))

    def test_columns_that_are_passed_on_keep_their_types(self, tmp_path):
        rows = (
            '{"text": "a", "id": 1, "score": 1, "ok": true, "tags": ["x", "é"], "mixed": 1}\n'
            '{"text": "b", "id": 2, "score": 0.5, "ok": null, "mixed": "m", "late": 9}\n'
        )
        path = save(tmp_path, "types.jsonl", rows)
        chunks = list(iter_tables(path, text_column="text", chunk_rows=1))
        assert chunks[0].schema == chunks[1].schema
        assert pa.concat_tables(chunks).to_pydict() == {
            "text": ["a", "b"],
            "id": [1, 2],
            "score": [1.0, 0.5],
            "ok": [True, None],
            "tags": ['["x", "é"]', None],
            "mixed": ["1", "m"],
            "late": [None, 9],
        }
        kinds = {field.name: str(field.type) for field in chunks[0].schema}
        assert kinds["id"] == "int64"
        assert kinds["ok"] == "bool"

    def test_an_integer_beyond_64_bits_keeps_its_digits(self, tmp_path):
        path = save(tmp_path, "big.jsonl", '{"text": "a", "id": 123456789012345678901234}\n')
        (chunk,) = iter_tables(path, text_column="text", chunk_rows=5)
        assert chunk["id"].to_pylist() == ["123456789012345678901234"]

    def test_a_large_integer_beside_a_float_becomes_a_float(self, tmp_path):
        rows = '{"text": "a", "n": 9007199254740993}\n{"text": "b", "n": 0.5}\n'
        (chunk,) = iter_tables(save(tmp_path, "mix.jsonl", rows), text_column="text", chunk_rows=5)
        assert chunk["n"].to_pylist() == [9007199254740992.0, 0.5]

    def test_half_a_surrogate_pair_becomes_the_replacement_character(self, tmp_path):
        rows = '{"text": "broken \\ud83d", "label": "whole \\ud83d\\ude42"}\n'
        table = read(save(tmp_path, "half.jsonl", rows))
        assert table == Table(("broken \ufffd",), ("whole 🙂",))

    def test_a_file_without_any_object_says_what_a_line_must_be(self, tmp_path):
        path = save(tmp_path, "array.jsonl", '[{"text": "a", "label": "x"}]\n')
        with pytest.raises(DataError, match=r'no JSON object.*"text"') as e:
            read(path)
        one_line(e)

    def test_not_utf8(self, tmp_path):
        path = save(tmp_path, "latin.jsonl", b'{"text": "caf\xe9"}\n')
        with pytest.raises(DataError, match=r"not UTF-8.*iconv"):
            read(path)

    def test_nesting_without_end_is_a_broken_line(self, tmp_path):
        path = save(tmp_path, "deep.jsonl", "[" * 200_000 + '\n{"text": "a", "label": "x"}\n')
        assert read(path).texts == (None, "a")


class TestXlsx:
    def test_the_first_sheet_counts_and_blank_rows_do_not(self, tmp_path):
        book = openpyxl.Workbook()
        first = book.active
        for row in ([], ["text", None, "label", None], ["a", 1, "x"], [], ["b"], [None, None, "y"]):
            first.append(row)
        book.create_sheet("notes").append(["not", "this"])
        book.save(tmp_path / "book.xlsx")
        assert read(tmp_path / "book.xlsx") == Table(("a", "b", ""), ("x", "", "y"))
        (chunk,) = iter_tables(tmp_path / "book.xlsx", text_column="text", chunk_rows=9)
        assert chunk.column_names == ["text", "column_2", "label"]

    def test_cells_read_as_text(self, tmp_path):
        book = openpyxl.Workbook()
        for row in (["text", "label"], [7, 1.0], [True, 2.5], [datetime.datetime(2024, 1, 2), "x"]):
            book.active.append(row)
        book.save(tmp_path / "cells.xlsx")
        assert read(tmp_path / "cells.xlsx") == Table(
            ("7", "true", "2024-01-02 00:00:00"), ("1", "2.5", "x")
        )

    def test_a_size_that_is_stated_wrongly_loses_no_rows(self, tmp_path):
        path = write(tmp_path, "xlsx")
        edit_sheet(path, b'<dimension ref="A1:C9"', b'<dimension ref="A1:B2"')
        assert read(path) == EXPECTED

    def test_a_formula_reads_as_its_last_result(self, tmp_path):
        path = write(tmp_path, "xlsx")
        edit_sheet(path, b'<c r="A2" t="n"><v>0</v>', b'<c r="A2" t="n"><f>40+2</f><v>42</v>')
        assert read_table(path, text_column="id").texts[:2] == ("42", "1")

    def test_an_empty_sheet(self, tmp_path):
        openpyxl.Workbook().save(tmp_path / "empty.xlsx")
        with pytest.raises(DataError, match="no rows in its first sheet"):
            read(tmp_path / "empty.xlsx")

    def test_a_header_alone(self, tmp_path):
        path = write(tmp_path, "xlsx", rows=[])
        with pytest.raises(DataError, match="no rows"):
            read(path)


class TestParquet:
    def test_typed_columns_read_as_text(self, tmp_path):
        table = pa.table(
            {
                "text": pa.array(["a", None, "nan"]).dictionary_encode(),
                "label": pa.array([1.0, float("nan"), None]),
                "money": [Decimal("1.50"), None, Decimal(2)],
            }
        )
        pq.write_table(table, tmp_path / "typed.parquet")
        assert read(tmp_path / "typed.parquet") == Table(("a", None, "nan"), ("1", None, None))
        money = read_table(tmp_path / "typed.parquet", text_column="money")
        assert money.texts == ("1.50", None, "2.00")

    def test_streaming_keeps_the_types(self, tmp_path):
        (chunk,) = iter_tables(write(tmp_path, "parquet"), text_column="text", chunk_rows=99)
        assert chunk.schema.field("id").type == pa.int64()

    def test_metadata_of_the_program_that_wrote_it_is_left_behind(self, tmp_path):
        rows = pa.table({"text": ["a"]}).replace_schema_metadata({"pandas": "{}"})
        pq.write_table(rows, tmp_path / "meta.parquet")
        (chunk,) = iter_tables(tmp_path / "meta.parquet", text_column="text", chunk_rows=9)
        assert chunk.schema.metadata is None

    @pytest.mark.parametrize("value", [["a"], {"b": 1}, b"c"])
    def test_a_column_that_is_no_text_is_refused(self, tmp_path, value):
        pq.write_table(pa.table({"text": [value], "label": ["x"]}), tmp_path / "nested.parquet")
        with pytest.raises(DataError, match=r"column 'text' of .* holds .*, not text"):
            read(tmp_path / "nested.parquet")

    def test_a_part_may_lack_a_column_or_hold_only_nulls_in_it(self, tmp_path):
        folder = tmp_path / "parts"
        folder.mkdir()
        pq.write_table(pa.table({"text": ["a"], "label": ["x"]}), folder / "1.parquet")
        pq.write_table(pa.table({"label": pa.nulls(1), "text": ["b"]}), folder / "2.parquet")
        pq.write_table(pa.table({"text": ["c"]}), folder / "3.parquet")
        assert read(folder) == Table(("a", "b", "c"), ("x", None, None))

    def test_parts_that_disagree_on_a_type(self, tmp_path):
        folder = tmp_path / "parts"
        folder.mkdir()
        pq.write_table(pa.table({"text": ["a"], "n": [1]}), folder / "1.parquet")
        pq.write_table(pa.table({"text": ["b"], "n": ["x"]}), folder / "2.parquet")
        with pytest.raises(DataError, match="disagree on their columns") as e:
            read_table(folder, text_column="text")
        one_line(e)

    def test_a_folder_without_parquet_files(self, tmp_path):
        write(tmp_path, "csv")
        (tmp_path / "_metadata.parquet").touch()
        with pytest.raises(DataError, match=r"is a folder without \.parquet files"):
            read(tmp_path)

    def test_a_part_that_is_damaged_is_named(self, tmp_path):
        folder = write(tmp_path, "folder")
        save(folder, "part-2.parquet", b"PAR1 nonsense PAR1")
        with pytest.raises(DataError, match=r"part-2.parquet' is not a readable Parquet file"):
            read(folder)


class TestBadFiles:
    def test_a_missing_file_suggests_its_neighbour(self, tmp_path):
        write(tmp_path, "csv")
        with pytest.raises(DataError, match=r"no file .*rwos\.csv'; did you mean 'rows\.csv'\?"):
            read(tmp_path / "rwos.csv")

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(DataError, match="there is no folder"):
            read(tmp_path / "nowhere" / "rows.csv")

    def test_a_file_where_a_folder_is_due(self, tmp_path):
        path = write(tmp_path, "csv")
        with pytest.raises(DataError, match="there is no file"):
            read(path / "rows.csv")

    def test_a_path_that_the_system_refuses(self, tmp_path):
        loop = tmp_path / "loop.csv"
        loop.symlink_to(loop)
        with pytest.raises(DataError, match=r"cannot read .*check the path and its permissions"):
            read(loop)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    @pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
    def test_a_file_without_permission(self, tmp_path, kind):
        path = write(tmp_path, kind)
        path.chmod(0)
        with pytest.raises(DataError, match=r"cannot read .*Permission denied"):
            read(path)

    def test_a_folder_with_the_name_of_a_file(self, tmp_path):
        (tmp_path / "rows.csv").mkdir()
        with pytest.raises(DataError, match="is a folder"):
            read(tmp_path / "rows.csv")

    @pytest.mark.parametrize("name", ["rows.txt", "rows", "rows.csv.gz", "rows.xls"])
    def test_an_unknown_extension_lists_the_known(self, tmp_path, name):
        path = save(tmp_path, name, "text,label\na,x\n")
        with pytest.raises(DataError, match=r"known are \.csv, \.tsv, \.jsonl, \.parquet, \.xlsx"):
            read(path)

    @pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
    def test_an_empty_file(self, tmp_path, kind):
        with pytest.raises(DataError, match="is empty"):
            read(save(tmp_path, f"empty.{kind}", b""))

    @pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
    def test_columns_without_rows(self, tmp_path, kind):
        path = tmp_path / f"header.{kind}"
        if kind == "parquet":
            pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": []}), path)
        else:
            write_delimited(path, [], "," if kind == "csv" else "\t")
        with pytest.raises(DataError, match="has columns but no rows"):
            read(path)
        with pytest.raises(DataError, match="has columns but no rows"):
            list(iter_tables(path, text_column="text", chunk_rows=5))

    @pytest.mark.parametrize(
        ("kind", "name"), [("parquet", "Parquet file"), ("xlsx", "XLSX workbook")]
    )
    @pytest.mark.parametrize("content", ["cut", "noise", "text"])
    def test_a_broken_binary_file(self, tmp_path, kind, name, content):
        path = write(tmp_path, kind)
        whole = path.read_bytes()
        middle = len(whole) // 2
        broken = {
            "cut": whole[:middle],
            "noise": whole[:4] + b"\xff\x00" * middle,
            "text": b"text,label\na,x\n",
        }
        path.write_bytes(broken[content])
        with pytest.raises(DataError, match=f"is not a readable {name}") as e:
            read(path)
        one_line(e)

    def test_a_parquet_text_that_is_not_utf8(self, tmp_path):
        path = write(tmp_path, "parquet", rows=[("unlike any other", "x")])
        path.write_bytes(
            path.read_bytes().replace(b"unlike any other", b"unlike \xff\xff\xff other")
        )
        with pytest.raises(DataError, match="is not a readable Parquet file"):
            read(path)

    def test_a_zip_that_is_no_workbook(self, tmp_path):
        path = write(tmp_path, "xlsx")
        path.write_bytes(path.read_bytes().replace(b"xl/workbook.xml", b"xl/wrkbook1.xml"))
        with pytest.raises(DataError, match="is not a readable XLSX workbook"):
            read(path)

    def test_a_socket_is_not_a_file(self, tmp_path):
        path = tmp_path / "s.csv"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            with pytest.raises(DataError, match="not a regular file"):
                read(path)
