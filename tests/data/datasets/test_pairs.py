import json
import logging

import pytest

from virtex_det.data.datasets import load_pairs
from virtex_det.errors import UserError
from virtex_det.image_files import IMAGE_SUFFIXES


@pytest.fixture
def folder(tmp_path):
    """Three pairs on two levels, one image and one text alone."""
    (tmp_path / "sub").mkdir()
    for image in ("b.jpg", "sub/a.PNG", "sub/c.d.webp", "alone.jpeg"):
        (tmp_path / image).touch()
    (tmp_path / "b.txt").write_text("a dog\n\n  a pet \n")
    (tmp_path / "sub/a.txt").write_text("\ufeffa café", encoding="utf-8")
    (tmp_path / "sub/c.d.txt").write_text("a ring")
    (tmp_path / "widow.txt").write_text("nobody")
    (tmp_path / "notes.md").touch()
    return tmp_path


@pytest.fixture
def write_lines(tmp_path):
    def write(*lines):
        path = tmp_path / "pairs.jsonl"
        path.write_text(
            "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        )
        return path

    return write


def test_a_folder_is_searched_through_all_levels_for_images_beside_their_text(folder):
    assert load_pairs(folder) == [
        {"file_name": str(folder / "b.jpg"), "image_id": "b.jpg", "captions": ["a dog", "a pet"]},
        {"file_name": str(folder / "sub/a.PNG"), "image_id": "sub/a.PNG", "captions": ["a café"]},
        {
            "file_name": str(folder / "sub/c.d.webp"),
            "image_id": "sub/c.d.webp",
            "captions": ["a ring"],
        },
    ]


def test_what_has_no_partner_is_counted(folder, caplog):
    with caplog.at_level(logging.INFO, logger="virtex_det"):
        load_pairs(folder)
    assert "3 pairs; left out 1 images without a text and 1 texts without an image" in caplog.text


def test_empty_texts_are_dropped_and_counted(folder, caplog):
    (folder / "b.txt").write_text(" \n\n")
    with caplog.at_level(logging.INFO, logger="virtex_det"):
        assert [entry["image_id"] for entry in load_pairs(folder)] == ["sub/a.PNG", "sub/c.d.webp"]
    assert "dropped 1 without captions, and 2 empty captions" in caplog.text


def test_a_folder_without_pairs_is_an_error_that_counts_what_is_there(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.txt").write_text("b")
    with pytest.raises(UserError, match="1 images and 1 texts, but no pair.*\n.*a.jpg and a.txt"):
        load_pairs(tmp_path)


def test_a_text_that_is_not_utf8_is_named(folder):
    (folder / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"b\.txt is not UTF-8"):
        load_pairs(folder)


def test_lines_may_name_image_and_captions_by_any_of_their_names(write_lines, tmp_path):
    path = write_lines(
        {"image": "a.jpg", "caption": "a dog", "more": 1},
        "",
        {"file_name": "sub/b.jpg", "captions": ["two", ""]},
        {"filename": "/else/c.jpg", "caption": "three"},
        {"image": "a.jpg", "caption": "a pet"},
    )
    assert load_pairs(path) == [
        {"file_name": "/else/c.jpg", "image_id": "/else/c.jpg", "captions": ["three"]},
        {"file_name": str(tmp_path / "a.jpg"), "image_id": "a.jpg", "captions": ["a dog", "a pet"]},
        {"file_name": str(tmp_path / "sub/b.jpg"), "image_id": "sub/b.jpg", "captions": ["two"]},
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"image": "b.jpg", "caption"',
        "[1]",
        {"caption": "no image"},
        {"image": "b.jpg"},
        {"image": "b.jpg", "caption": None},
        {"image": "b.jpg", "captions": ["a", 3]},
        {"image": 3, "caption": "a"},
    ],
    ids=str,
)
def test_a_bad_line_is_an_error_that_gives_its_number(line, write_lines):
    with pytest.raises(
        UserError, match=r"pairs\.jsonl, line 2 (is not JSON|has no image with its caption)"
    ):
        load_pairs(write_lines({"image": "a.jpg", "caption": "a"}, line))


def test_a_file_that_is_not_text_is_an_error(tmp_path):
    (tmp_path / "pairs.jsonl").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(UserError, match="not UTF-8"):
        load_pairs(tmp_path / "pairs.jsonl")


def test_a_file_without_captions_is_an_error(write_lines):
    with pytest.raises(UserError, match="1 images but no captions"):
        load_pairs(write_lines({"image": "a.jpg", "caption": ""}))


def test_two_images_of_one_text_are_refused_by_name(folder):
    (folder / "b.png").touch()
    with pytest.raises(UserError, match=r"b\.jpg and b\.png both belong to b\.txt"):
        load_pairs(folder)


def test_lines_end_at_line_feeds_alone(folder, write_lines, tmp_path):
    (folder / "b.txt").write_bytes("a dog\u2028in\x0ba park\x85\r\na pet".encode())
    assert load_pairs(folder)[0]["captions"] == ["a dog\u2028in a park", "a pet"]
    path = write_lines({"image": "a.jpg", "caption": "a"}).with_name("more.jsonl")
    path.write_text(
        '\ufeff{"image": "a.jpg", "caption": "one\u2028two"}\r\n', encoding="utf-8", newline=""
    )
    assert load_pairs(path)[0]["captions"] == ["one\u2028two"]


def test_what_systems_leave_behind_is_no_pair(folder, write_lines):
    for name in (
        "._b.jpg",
        "._b.txt",
        ".ipynb_checkpoints/b-checkpoint.txt",
        ".ipynb_checkpoints/b-checkpoint.jpg",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert len(load_pairs(folder)) == 3


@pytest.mark.parametrize("caption", ["a \ud83d dog", "\udc80"])
def test_half_a_character_is_refused_with_its_line(caption, write_lines):
    with pytest.raises(UserError, match="line 2 has a caption with a lone surrogate"):
        load_pairs(
            write_lines({"image": "a.jpg", "caption": "a"}, {"image": "b.jpg", "caption": caption})
        )


def test_a_line_nested_without_end_is_refused_with_its_number(write_lines):
    with pytest.raises(UserError, match=r"line 2 is not JSON.*nested too deep"):
        load_pairs(
            write_lines(
                {"image": "a.jpg", "caption": "a"}, '{"image": "b.jpg", "caption": ' + "[" * 100_000
            )
        )


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, ".TIF", ".Bmp"])
def test_a_pair_may_have_any_image_that_is_read(suffix, tmp_path):
    (tmp_path / f"a{suffix}").touch()
    (tmp_path / "a.txt").write_text("a dog")
    assert [entry["image_id"] for entry in load_pairs(tmp_path)] == [f"a{suffix}"]


def test_the_case_of_a_suffix_does_not_part_a_pair(tmp_path):
    (tmp_path / "a.JPG").touch()
    (tmp_path / "a.TXT").write_text("a dog")
    assert [entry["captions"] for entry in load_pairs(tmp_path)] == [["a dog"]]
    (tmp_path / "a.txt").write_text("a cat")
    with pytest.raises(UserError, match=r"a\.(txt|TXT) are captions of the same image"):
        load_pairs(tmp_path)


@pytest.mark.parametrize("name", ["a.tsv", "a.json", "a.jsonl.gz"])
def test_a_file_of_another_kind_is_answered_with_the_kinds_that_are_read(name, tmp_path):
    (tmp_path / name).write_text("a.jpg\ta star")
    with pytest.raises(UserError, match=rf"{name} is neither a folder nor a \.jsonl(?s:.*)a dog"):
        load_pairs(tmp_path / name)


def test_the_case_of_the_suffix_of_lines_does_not_matter(tmp_path):
    (tmp_path / "a.JSONL").write_text('{"image": "a.jpg", "caption": "a star"}\n')
    assert load_pairs(tmp_path / "a.JSONL")[0]["file_name"] == f"{tmp_path}/a.jpg"


def test_marks_that_nobody_sees_are_no_part_of_a_caption(folder):
    (folder / "unseen.jpg").touch()
    (folder / "unseen.txt").write_text(
        "\ufeffa cat\n\ufeffa dog \u200b\n\u200b\n\u200ca\u200db\n", encoding="utf-8"
    )
    found = {entry["image_id"]: entry["captions"] for entry in load_pairs(folder)}
    assert found["unseen.jpg"] == ["a cat", "a dog", "\u200ca\u200db"]
