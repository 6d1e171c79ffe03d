import json
import sys

import numpy as np
import pytest

from clipcond.errors import DataError
from clipcond.images.preprocess import Preprocess
from clipcond.train.data import read_pairs
from clipcond.train.pixels import prepare

from .pictures import picture, said

HALF = (0.5, 0.5, 0.5)
WHOLE = Preprocess(height=32, width=32, mean=HALF, std=HALF)


def test_csv_rows_of_one_image_are_merged_and_paths_are_relative_to_the_file(pairs_csv):
    pairs = read_pairs(pairs_csv)
    assert len(pairs) == 24
    assert pairs.captions[3] == tuple(said(3))
    assert np.array_equal(prepare(pairs.images[3], WHOLE), np.asarray(picture(3)))


@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_the_separator_is_sniffed_or_stated(tmp_path, separator):
    picture(0).save(tmp_path / "a.png")
    path = tmp_path / "pairs.csv"
    path.write_text(f"id{separator}Image{separator}Caption\n1{separator}a.png{separator}red, green\n")
    for stated in (None, separator):
        assert read_pairs(path, separator=stated).captions == [("red, green",)]


def test_jsonl_takes_one_caption_or_several(tmp_path):
    picture(0).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.png")
    lines = [{"path": "a.png", "text": "one"}, {"image": "b.png", "captions": ["two", "three"]}]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert read_pairs(path).captions == [("one",), ("two", "three")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", "image,caption\na.png,x\ngone.png,y\n", r"line 3: .*gone\.png does not exist$"),
        ("p.csv", "image,caption\na.png,  \n", r"line 2: the caption of a\.png is empty"),
        ("p.csv", "image,caption\n,x\n", "line 2: the image path is empty"),
        ("p.csv", "image,caption\na.png\n", "line 2: 1 columns, the header has more"),
        ("p.csv", "picture,caption\na.png,x\n", r"has the header 'picture,caption'; expected a column of image"),
        ("p.csv", "image,caption\n", r"p\.csv holds no pairs"),
        ("p.jsonl", "{\n", "line 1: not JSON"),
        ("p.jsonl", '{"caption": "x"}\n', "line 1: no image; expected one of image, path, filepath, file_name, url"),
        ("p.jsonl", '{"image": "a.png", "caption": null}\n', "line 1: no caption; expected a text or a list"),
        ("p.jsonl", '{"image": "a.png", "caption": []}\n', "line 1: no caption; expected a text or a list"),
        ("p.jsonl", '{"image": "a.png", "caption": [""]}\n', r"line 1: the caption of a\.png is empty"),
        ("p.jsonl", '["a.png"]\n', "line 1: no image"),
        ("p.xls", "", r"ends in '\.xls', expected \.csv, \.tsv, \.jsonl, \.parquet, \.tar or \.tar\.gz"),
        ("p.tar", "not a tar at all", r"p\.tar is not a readable tar"),
    ],
)
def test_unusable_data_is_one_line(tmp_path, name, content, message):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_pairs(tmp_path / name)
    assert "\n" not in str(caught.value)


def table(tmp_path, content, name="p.csv"):
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.png")
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path, **settings):
    with pytest.raises(DataError) as caught:
        read_pairs(path, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,caption\n0.png,a cat\n1.png,caf\xe9\n".encode("latin-1"),
            "p.csv, line 3: the byte 0xe9 is not UTF-8; save",
        ),
        (
            "image,caption\n0.png,a cat\n".encode("utf-16"),
            "p.csv, line 1: this is UTF-16 or no text at all; save the file",
        ),
        ("image,caption\n0.png,a cat\n".encode("utf-16-be"), "p.csv, line 1: this is UTF-16 or no text at all"),
        (b"image,caption\n0.png,a cat\n1.png,\xff\xfe\n", "p.csv, line 3: the byte 0xff is not UTF-8"),
    ],
)
def test_a_table_in_another_encoding_is_one_line_with_the_row(tmp_path, content, message):
    assert message in error_of(table(tmp_path, content))


def test_jsonl_in_another_encoding_is_one_line_with_the_row(tmp_path):
    path = table(tmp_path, b'{"image": "0.png", "text": "x"}\n{"image": "0.png", "text": "caf\xe9"}\n', "p.jsonl")
    assert "line 2: the byte 0xe9 is not UTF-8" in error_of(path)


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path, name):
    content = '{"image": "0.png", "text": "x"}\n' if name.endswith("l") else "image,caption\n0.png,x\n"
    assert read_pairs(table(tmp_path, content.encode("utf-8-sig"), name)).captions == [("x",)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,caption\n0.png,a cat, brown\n",
            "line 2: 3 columns, the header has 2; put a caption that holds ',' in quotes",
        ),
        ('image,caption\n0.png,"a cat\n1.png,a dog\n', "line 2: unexpected end of data; is a quote left open"),
        ('image,caption\n0.png,"a cat\n1.png,"a dog"\n', "line 2: ',' expected after '\"'; is a quote left open"),
        ('image,caption\n0.png,"a cat\n1.png,a fox\n2.png,"\n', "line 2: a quote that is never closed swallows line 3"),
        ("image,caption\n0.png," + "x" * 200_000 + "\n", "line 2: a field of more than 131,072 characters; is a quote"),
    ],
)
def test_a_table_that_would_lose_rows_or_columns_silently_is_one_line(tmp_path, content, message):
    assert message in error_of(table(tmp_path, content))


@pytest.mark.parametrize("header", ["image,caption\r0.png,x\r", "image,caption," + "x" * 200_000 + "\n"])
def test_a_first_line_that_is_no_row_is_one_line(tmp_path, header):
    assert "p.csv has the header 'image,caption" in error_of(table(tmp_path, header))


@pytest.mark.parametrize("separator", ["", "||", "\n", '"'])
def test_a_separator_is_one_character(tmp_path, separator):
    assert "expected one character" in error_of(table(tmp_path, "image,caption\n0.png,x\n"), separator=separator)


def test_a_caption_of_several_lines_and_empty_columns_behind_lose_nothing(tmp_path):
    path = table(tmp_path, 'image,caption\n0.png,"a cat\non a mat",,\n1.png,"a ""big"" dog"\n')
    assert read_pairs(path).captions == [("a cat\non a mat",), ('a "big" dog',)]


def test_two_spellings_of_one_path_are_one_image(tmp_path):
    path = table(tmp_path, f"image,caption\n0.png,one\n./0.png,two\nx/../0.png,three\n{tmp_path}/0.png,four\n")
    assert read_pairs(path).captions == [("one", "two", "three", "four")]


@pytest.mark.parametrize(("image", "caption"), [("file_name", "text"), ("URL", "TEXT"), ("File_Name", "Caption")])
def test_columns_as_other_tools_name_them(tmp_path, image, caption):
    assert read_pairs(table(tmp_path, f"{image},{caption}\n0.png,x\n")).captions == [("x",)]
    assert read_pairs(table(tmp_path, f'{{"{image}": "0.png", "{caption}": "x"}}\n', "p.jsonl")).captions == [("x",)]


def test_a_web_address_is_no_picture(tmp_path):
    assert "line 2: https://a.b/c.png is a web address; download" in error_of(
        table(tmp_path, "URL,TEXT\nhttps://a.b/c.png,x\n")
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": ' + "[" * 100_000, "line 1: JSON that is nested too deeply"),
        ('{"image": "0.png", "text": "a \\ud83d b"}', "line 1: half a character (\\ud83d)"),
        ('{"image": "0.png", "text": ' + "1" * 5000 + "}", "line 1: "),
    ],
)
def test_json_that_no_caption_is_made_of_is_one_line(tmp_path, line, message):
    assert message in error_of(table(tmp_path, line + "\n", "p.jsonl"))


def test_a_line_without_end_is_not_read_whole(tmp_path, monkeypatch):
    from clipcond.train import tables

    monkeypatch.setattr(tables, "_LONGEST_LINE", 1 << 20)
    assert "line 2: longer than 1 MiB" in error_of(table(tmp_path, "image,caption\n0.png," + "x" * (1 << 21)))


def test_a_limited_number_of_bad_rows_is_left_out_and_told(tmp_path):
    path = table(tmp_path, "image,caption\n0.png,a\n1.png,\n7.png,b\n2.png,c\n")
    pairs = read_pairs(path, max_bad_rows=2)
    assert pairs.captions == [("a",), ("c",)]
    assert [text.partition(": ")[2] for text in pairs.left_out] == [
        "the caption of 1.png is empty",
        f"{tmp_path}/7.png does not exist",
    ]
    said = error_of(path, max_bad_rows=1)
    assert said.endswith("7.png does not exist (max_bad_rows is 1, and so many are left out already)")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "p.parquet: Parquet needs pyarrow, which is not installed; pip install pyarrow" in error_of(
        table(tmp_path, b"PAR1", "p.parquet")
    )


def test_parquet_gives_the_rows_of_its_columns(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = table(tmp_path, b"", "p.parquet")
    columns = {"id": [1, 2], "URL": ["0.png", "1.png"], "TEXT": ["a cat", "a dog"]}
    parquet.write_table(arrow.table(columns), path)
    assert read_pairs(path).captions == [("a cat",), ("a dog",)]
    parquet.write_table(arrow.table({**columns, "TEXT": ["a cat", None]}), path)
    assert "p.parquet, row 2: no caption" in error_of(path)
    parquet.write_table(arrow.table({"id": [1]}), path)
    assert "has the columns id; expected one of image" in error_of(path)
    path.write_bytes(b"no table")
    assert "p.parquet cannot be read as Parquet: " in error_of(path)
