import bz2
import gzip
import lzma
import os

import pytest

from virtex_det.errors import UserError
from virtex_det.text_files import parse_json, read_json, read_lines, read_text, split_lines

TEXT = "a café\u2028on a street\r\na dog\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_not_part_of_the_text(encoding, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    assert [line for _, line in read_lines(path)] == ["a café\u2028on a street", "a dog"]
    path.write_bytes('{"a": [1]}'.encode(encoding))
    assert read_json(path) == {"a": [1]}


@pytest.mark.parametrize(
    "end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
)
def test_lines_end_only_at_line_ends_of_files(end):
    assert split_lines(f"a{end}b\r\nc\n\nd") == [f"a{end}b", "c", "", "d"]
    assert split_lines("") == []


def test_lines_are_named_by_their_number_in_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("one\n \nthree")
    assert list(read_lines(tmp_path / "a.txt")) == [
        (f"{tmp_path}/a.txt, line 1", "one"),
        (f"{tmp_path}/a.txt, line 3", "three"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("utf-16"), "UTF-16"),
        (TEXT.encode("utf-32"), "UTF-32"),
        (TEXT.encode("utf-16-le"), "NUL characters|not UTF-8"),
        (b"caf\xe9", "not UTF-8 text"),
        (b"a\0b", "NUL characters"),
    ],
)
@pytest.mark.parametrize("read", [read_text, read_json, lambda path: list(read_lines(path))])
def test_other_encodings_are_refused_by_name(read, content, message, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"(?s){path}.*({message}|not JSON)"):
        read(path)


@pytest.mark.parametrize("read", [read_text, read_json, lambda path: list(read_lines(path))])
@pytest.mark.parametrize(
    "kind", ["absent", "folder", "pipe", "device", "circular link", "long name", "a NUL"]
)
def test_only_regular_files_are_read_and_nothing_hangs(kind, read, tmp_path):
    path = tmp_path / "a"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "circular link":
        path.symlink_to(path)
    elif kind == "long name":
        path = tmp_path / ("a" * 5000)
    elif kind == "a NUL":
        path = tmp_path / "a\0b"
    with pytest.raises(UserError, match="Expected a"):
        read(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        " ",
        "{",
        "<html>",
        "[1,]",
        "{'a': 1}",
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 50_000,
        "1" * 5000,
        "\x00\x01",
    ],
    ids=lambda content: content[:10],
)
def test_the_error_for_invalid_json_names_the_file(content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json is not JSON") as error:
        read_json(tmp_path / "a.json")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [
        '{"id": 1, "id": 2}',
        '[{"a": {"id": 1, "b": [], "id" : 1}}]',
        '[1, {"id": 1, "id": 2}]',
        '{"a": "\\": ", "id": 1, "id": 2}',
        '{"a\\\\": 1, "a\\\\": 2}',
        '{"a": NaN, "id": 1, "id": 2}',
    ],
)
def test_two_values_under_one_name_are_refused(content):
    with pytest.raises(UserError, match=r"results.json is not JSON: .*twice"):
        parse_json(content, "results.json")


@pytest.mark.parametrize(
    "content", ['{"a": "b\\": c"}', '["a", ": b", ":"]', '{"a\\\\": 1, ":": 2}', '[1, {"a": 1}]']
)
def test_colons_and_quotes_in_text_are_not_names(content):
    import json

    assert parse_json(content, "a") == parse_json(content.encode(), "a") == json.loads(content)


def test_numbers_that_json_does_not_have_are_read():
    found = parse_json('{"a": NaN, "b": 1e400, "c": -Infinity, "d": "\\ud800"}', "a")
    assert (
        found["a"] != found["a"]
        and found["b"] == -found["c"] == float("inf")
        and found["d"] == "\ud800"
    )


def test_a_text_whose_lines_all_end_with_a_carriage_return_has_lines():
    assert split_lines("a\rb\r") == ["a", "b"]
    assert split_lines("a\rb\nc") == ["a\rb", "c"]


@pytest.mark.parametrize(
    ("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_the_error_for_a_compressed_file_names_the_compression(pack, name, tmp_path):
    (tmp_path / "a.json").write_bytes(pack(b'{"images": []}'))
    with pytest.raises(
        UserError, match=f"a.json is not JSON: it is compressed by {name}, not text"
    ):
        read_json(tmp_path / "a.json")
