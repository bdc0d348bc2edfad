import json
import logging
import os
import sys

import pytest

from virtex_det.data.datasets import load_dataset, load_shards
from virtex_det.data.datasets.shards import Shard, encoded, shard_files
from virtex_det.data.images import read_image
from virtex_det.errors import UserError


@pytest.fixture
def shard(tmp_path, write_shard):
    """A shard of four samples."""
    return write_shard(tmp_path / "s.tar", 4)


def read(path):
    return list(Shard(str(path)).samples(encoded))


def ids(samples):
    return [sample["image_id"] for sample in samples]


def cut(path, files_kept, extra=700):
    """Cut a tar file ``extra`` bytes into the data of the file after the first ``files_kept``."""
    import tarfile

    with tarfile.open(path) as tar:
        offset = tar.getmembers()[files_kept].offset_data
    path.write_bytes(path.read_bytes()[: offset + extra])


def test_samples_are_dataset_dicts(shard, photo):
    assert read(shard)[1] == {
        "file_name": f"{shard}/s_1.jpg",
        "image_id": "s_1",
        "captions": ["star s 1"],
        "encoded_image": photo.read_bytes(),
    }


@pytest.mark.parametrize(
    ("files", "captions"),
    [
        ({"txt": b" of the text\n", "json": b'{"caption": "of the json"}'}, ["of the text"]),
        ({"txt": b"", "json": b'{"caption": "of the json", "url": "x"}'}, ["of the json"]),
        ({"txt": None, "json": b'{"captions": ["one", " ", "two"]}'}, ["one", "two"]),
        ({"txt": None, "json": b'{"caption": null}'}, []),
        ({"txt": None, "json": b'{"caption'}, []),
        ({"txt": None, "json": b"[1]"}, []),
        ({"txt": b" \n"}, []),
        ({"txt": None}, []),
    ],
    ids=str,
)
def test_captions_come_from_the_text_or_else_the_json(tmp_path, write_shard, files, captions):
    (sample,) = read(write_shard(tmp_path / "s.tar", 1, {0: files}))
    assert sample["captions"] == captions


@pytest.mark.parametrize(
    "suffix", ["jpg", "jpeg", "png", "webp", "JPG", "tif", "bmp", "jp2", "avif"]
)
def test_images_may_have_any_common_suffix(tmp_path, write_shard, suffix):
    (sample,) = read(write_shard(tmp_path / "s.tar", 1, {0: {"jpg": None, suffix: b"pixels"}}))
    assert sample["encoded_image"] == b"pixels" and sample["file_name"].endswith(
        f"s_0.{suffix.lower()}"
    )


def test_a_sample_without_an_image_has_none(tmp_path, write_shard):
    samples = read(write_shard(tmp_path / "s.tar", 2, {0: {"jpg": None}}))
    assert ["encoded_image" in sample for sample in samples] == [False, True]


@pytest.mark.parametrize(("files_kept", "whole"), [(4, 2), (5, 3), (2, 1)])
def test_of_a_shard_cut_short_the_whole_samples_are_read_and_counted_alike(
    shard, files_kept, whole
):
    cut(shard, files_kept, extra=3)
    damaged = Shard(str(shard))
    samples = list(damaged.samples(encoded))
    assert len([sample for sample in samples if sample["captions"]]) == files_kept // 2
    assert len(samples) == damaged.count() == whole and not damaged.is_whole


def test_a_shard_damaged_in_the_middle_is_not_taken_for_a_whole_one(shard):
    content = bytearray(shard.read_bytes())
    middle = content.index(b"s_2.jpg")
    content[middle : middle + 512] = b"\xff" * 512
    shard.write_bytes(content)
    damaged = Shard(str(shard))
    assert ids(damaged.samples(encoded)) == ["s_0", "s_1"] and not damaged.is_whole


def test_a_whole_shard_is_known_as_one(shard):
    whole = Shard(str(shard))
    assert len(list(whole.samples(encoded))) == 4 and whole.is_whole


@pytest.mark.parametrize("content", [b"", b"no tar", None], ids=str)
def test_what_is_no_tar_file_has_no_samples(tmp_path, content):
    path = tmp_path / "s.tar"
    if content is not None:
        path.write_bytes(content)
    shard = Shard(str(path))
    assert list(shard.samples(encoded)) == [] and shard.count() == 0 and not shard.is_whole


def test_counting_reads_the_headers_only(shard, monkeypatch):
    import tarfile

    monkeypatch.setattr(tarfile.TarFile, "extractfile", None)
    assert Shard(str(shard)).count() == 4
    assert Shard(str(shard)).count(keep=lambda key: key == "s_2") == 1


@pytest.mark.parametrize(
    ("stats", "count"),
    [
        ('{"successes": 9, "count": 12}', 9),
        ('{"successes": -1}', 4),
        ('{"successes": "9"}', 4),
        ("{", 4),
        ("[]", 4),
    ],
)
def test_the_number_of_samples_is_what_img2dataset_says_where_that_can_be_read(shard, stats, count):
    shard.with_name("s_stats.json").write_text(stats)
    assert Shard(str(shard)).count() == count


def test_what_img2dataset_says_does_not_hold_for_a_shard_cut_short_or_for_a_part(shard):
    shard.with_name("s_stats.json").write_text('{"successes": 4}')
    assert Shard(str(shard)).count(keep=lambda key: key in ("s_0", "s_3")) == 2
    cut(shard, 4)
    assert Shard(str(shard)).count() < 4


def test_listed_shards_have_images_that_are_read_from_where_they_lie(tmp_path, write_shard, photo):
    write_shard(tmp_path / "0.tar", 2)
    write_shard(tmp_path / "1.tar", 2, {0: {"txt": b""}, 1: {"jpg": None}})
    dicts = load_shards(f"{tmp_path}/{{0..1}}.tar")
    assert ids(dicts) == ["0_0", "0_1"]
    expected = read_image({"file_name": str(photo)}, "RGB")
    assert (read_image(dicts[1], "RGB") == expected).all() and dicts[1]["height"] == 40


def test_a_listed_shard_that_is_cut_short_is_named_in_the_log(shard, caplog):
    cut(shard, 4)
    with caplog.at_level(logging.WARNING):
        assert len(load_shards(str(shard))) == 2
    assert f"{shard} is truncated" in caplog.text


def test_a_pattern_counts_with_braces_and_finds_with_a_star(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    assert shard_files("/data/{00..02}.tar") == ["/data/00.tar", "/data/01.tar", "/data/02.tar"]
    assert shard_files(f"{tmp_path}/*.tar") == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]
    (tmp_path / "._a.tar").touch()
    assert shard_files(f"{tmp_path}*/*.tar") == [f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]


def test_without_webdataset_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match=r'pip install "virtex_det\[pretrain\]"'):
        shard_files("/data/0.tar")


def test_a_sample_of_many_files_is_one(tmp_path, write_shard):
    extra = {"json": json.dumps({"caption": "x", "width": 3}).encode(), "cls": b"3"}
    assert Shard(str(write_shard(tmp_path / "s.tar", 3, {0: extra, 2: extra}))).count() == 3


def write_tar(path, **files):
    """Write a tar file of texts and pixels, in the order given."""
    import io
    import tarfile

    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def summary(path):
    samples = read(path)
    assert Shard(str(path)).count() == len(samples)
    return {
        s["image_id"]: (s.get("encoded_image"), s["captions"]) for s in samples if "fault" not in s
    }


def test_names_with_dots_are_read_up_to_the_last_one(tmp_path):
    files = {
        "a.v2.jpg": b"1",
        "a.v2.txt": b"one",
        "a.v3.JPG": b"2",
        "a.v3.json": b'{"caption": "two"}',
        "b.jpg": b"3",
    }
    path = write_tar(tmp_path / "s.tar", **files)
    assert summary(path) == {"a.v2": (b"1", ["one"]), "a.v3": (b"2", ["two"]), "b": (b"3", [])}


def test_further_files_of_a_sample_are_no_samples_as_in_webdataset(tmp_path):
    files = {
        "d.1/a.jpg": b"1",
        "d.1/a.mask.png": b"0",
        "d.1/a.txt": b"one",
        "d.1/a.meta.json": b"{}",
    }
    assert summary(write_tar(tmp_path / "s.tar", **files)) == {"d.1/a": (b"1", ["one"])}


def test_what_systems_leave_behind_is_no_sample(tmp_path):
    files = {
        "._a.jpg": b"",
        "a.jpg": b"1",
        "./._a.txt": b"",
        "a.txt": b"one",
        "__MACOSX/a.jpg": b"",
        ".DS_Store": b"",
    }
    assert summary(write_tar(tmp_path / "s.tar", **files)) == {"a": (b"1", ["one"])}


def test_a_sample_whose_files_are_apart_is_named_with_what_to_do(tmp_path):
    files = {"a.jpg": b"1", "b.jpg": b"2", "a.txt": b"one", "b.txt": b"two"}
    path = write_tar(tmp_path / "s.tar", **files)
    assert [sample.get("fault", "")[:19] for sample in read(path)] == [
        "",
        "",
        "files of one sample",
        "files of one sample",
    ]
    with pytest.raises(
        UserError, match=r"s\.tar/a: .*do not follow one another(?s:.*)tar --sort=name"
    ):
        load_shards(str(path))


def test_of_two_samples_of_one_name_the_second_is_not_taken_for_the_first(tmp_path):
    import tarfile

    path = write_tar(
        tmp_path / "s.tar", **{"a.jpg": b"1", "a.txt": b"one", "b.jpg": b"2", "b.txt": b"two"}
    )
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert [sample["image_id"] for sample in read(path) if "fault" in sample] == ["a"]


@pytest.mark.parametrize("text", [b"caf\xe9", "a dog".encode("utf-16"), b'"\xff'])
def test_a_caption_in_another_encoding_is_left_out_by_name(tmp_path, write_shard, text, caplog):
    path = write_shard(tmp_path / "s.tar", 3, {1: {"txt": text}})
    assert [sample.get("fault") for sample in read(path)] == [
        None,
        "caption is not UTF-8 text",
        None,
    ]
    with caplog.at_level(logging.WARNING):
        assert ids(load_shards(str(path))) == ["s_0", "s_2"]
    assert (
        "1 samples are left out: caption is not UTF-8 text; the first:" in caplog.text
        and "s_1" in caplog.text
    )


def test_json_nested_without_end_is_no_caption(tmp_path, write_shard):
    (sample,) = read(write_shard(tmp_path / "s.tar", 1, {0: {"txt": None, "json": b"[" * 100_000}}))
    assert sample["captions"] == []


@pytest.mark.parametrize(("mode", "name"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed_shards_are_refused_by_name_before_they_are_read(tmp_path, photo, mode, name):
    import tarfile

    path = tmp_path / "s.tar.gz"
    with tarfile.open(path, mode) as tar:
        tar.add(photo, "a.jpg")
    with pytest.raises(UserError, match=rf"s\.tar\.gz is compressed by {name}(?s:.*)Decompress"):
        load_dataset(f"shards:{path}")


def test_a_pipe_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(UserError, match="not a regular file"):
        load_dataset(f"shards:{tmp_path}/s.tar")


def test_two_shards_with_samples_of_one_name_are_refused_where_they_are_listed(
    tmp_path, write_shard
):
    path = write_shard(tmp_path / "s.tar", 2)
    (tmp_path / "t.tar").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match="image id s_0 occurs twice"):
        load_dataset(f"shards:{tmp_path}/*.tar")


def test_a_pattern_of_more_shards_than_anybody_has_is_refused_at_once():
    with pytest.raises(UserError, match="more than 1,000,000"):
        shard_files("/data/{0..99999}_{000000000..999999999}.tar")


@pytest.mark.parametrize(
    "content", [b'{"caption', b'{"caption": 3}', b'{"captions": ["a star", null]}']
)
def test_a_json_that_cannot_be_the_caption_is_left_out_by_name(
    tmp_path, write_shard, content, caplog
):
    path = write_shard(tmp_path / "s.tar", 2, {1: {"txt": None, "json": content}})
    assert ids(load_shards(str(path))) == ["s_0"]
    assert "1 samples are left out: its" in caplog.text and "s_1" in caplog.text


@pytest.mark.parametrize("content", [b"", b"<html>" * 400])
def test_a_file_that_is_no_tar_is_said_to_be_none(tmp_path, content):
    (tmp_path / "s.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"s\.tar has no whole sample: .* is not a tar file"):
        load_shards(str(tmp_path / "s.tar"))


def test_two_tar_files_one_behind_the_other_are_not_taken_for_a_whole_one(shard, tmp_path, caplog):
    (tmp_path / "both.tar").write_bytes(shard.read_bytes() + shard.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert len(load_shards(str(tmp_path / "both.tar"))) == 4
    assert "both.tar is truncated, damaged, or several tar files concatenated" in caplog.text


def test_a_sample_whose_image_is_a_link_in_the_tar_file_is_counted(tmp_path, photo, caplog):
    import tarfile

    path = write_tar(
        tmp_path / "s.tar", **{"a.jpg": photo.read_bytes(), "a.txt": b"one", "b.txt": b"two"}
    )
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        tar.addfile(link)
    with caplog.at_level(logging.WARNING):
        assert ids(load_shards(str(path))) == ["a"]
    assert f"1 samples are left out: sample without image; the first: {path}/b" in caplog.text


@pytest.mark.parametrize("name", ["a.caption", "a.jpg.txt", "a.cls"])
def test_shards_without_captions_are_told_what_one_looks_like(tmp_path, name):
    path = write_tar(tmp_path / "s.tar", **{"a.jpg": b"1", name: b"a star"})
    with pytest.raises(
        UserError, match=r"1 images but no captions\.\nExpected an image .* and a txt or json"
    ):
        load_shards(str(path))
