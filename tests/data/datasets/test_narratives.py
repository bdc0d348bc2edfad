import json
import logging
import math

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from virtex_det.data.datasets.narratives import load_narratives, register_narratives
from virtex_det.errors import UserError

WORDS = (("a", 0.0, 0.1), ("star", 0.1, 0.4))
POINTS = ((0.5, 0.25, 0.2),)


def _line(image_id="7", words=WORDS, points=POINTS, **other):
    return {
        "dataset_id": "mscoco_val2017",
        "image_id": image_id,
        "annotator_id": 1,
        "caption": " ".join(text for text, _, _ in words),
        "timed_caption": [
            {"utterance": text, "start_time": start, "end_time": end} for text, start, end in words
        ],
        "traces": [[{"x": x, "y": y, "t": t} for x, y, t in points]] if points else [],
        "voice_recording": "",
        **other,
    }


@pytest.fixture
def images(tmp_path):
    """COCO's image 7 under its padded name, and two images of other data sets; 40 x 30."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("000000000007.jpg", "ADE_train_1.png", "1000092795.jpg"):
        Image.new("RGB", (40, 30)).save(folder / name)
    return folder


@pytest.fixture
def load(tmp_path, images):
    def load(*lines, **options):
        path = tmp_path / "narratives.jsonl"
        path.write_text(
            "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        )
        return load_narratives(path, images, **options)

    return load


def _trace(dicts):
    return dicts[0]["traces"][0]


def test_a_narrative_becomes_a_dataset_dict(load, images):
    (entry,) = load(_line())
    (trace,) = entry.pop("traces")
    path = str(images / "000000000007.jpg")
    assert entry == {
        "file_name": path,
        "image_id": 7,
        "height": 30,
        "width": 40,
        "captions": ["a star"],
    }
    assert trace["utterances"] == [*WORDS]
    assert trace["points"].dtype == np.float32 and np.array_equal(
        trace["points"], np.float32(POINTS)
    )


@pytest.mark.parametrize(
    "image_id, name, known_as",
    [("7", "000000000007.jpg", 7), ("ADE_train_1", "ADE_train_1.png", "ADE_train_1")]
    + [("1000092795", "1000092795.jpg", "1000092795"), (7, "000000000007.jpg", 7)],
)
def test_an_image_is_found_by_its_name_or_by_cocos_name_for_its_number(
    load, image_id, name, known_as
):
    (entry,) = load(_line(image_id))
    assert entry["file_name"].endswith(f"/{name}") and entry["image_id"] == known_as


def test_several_narratives_of_an_image_stay_together_in_order(load):
    other = (("two", 0.0, 0.1),)
    dicts = load(_line(), _line("ADE_train_1"), _line(words=other, points=[(0.1, 0.2, 0.3)]))
    assert [entry["captions"] for entry in dicts] == [["a star", "two"], ["a star"]]
    assert [len(entry["traces"]) for entry in dicts] == [2, 1]
    assert dicts[0]["traces"][1]["utterances"] == [*other]


def test_an_utterance_of_several_words_stays_one(load):
    words = [("In this", 0.0, 0.4), ("image", 0.4, 0.4)]
    assert _trace(load(_line(words=words)))["utterances"] == words


def test_segments_are_joined_whatever_their_number_and_points_outside_are_kept(load):
    points = [(-0.1, 1.1, 0.1), (0.5, 0.5, 0.2), (1.05, 0.0, 0.9)]
    segments = [
        [dict(zip("xyt", point, strict=True)) for point in part]
        for part in (points[:2], [], points[2:])
    ]
    assert np.array_equal(_trace(load(_line(traces=segments)))["points"], np.float32(points))


@pytest.mark.parametrize("traces", [[], [[]], None])
def test_a_record_without_trace_is_kept_for_its_caption_and_counted(load, caplog, traces):
    entry = load(_line(), _line(traces=traces))[0]
    assert entry["captions"] == ["a star", "a star"] and entry["traces"][1]["points"].shape == (
        0,
        3,
    )
    assert (
        "1 narratives without a trace" in caplog.text and "narratives.jsonl, line 2" in caplog.text
    )


def test_a_record_without_times_is_kept_for_its_caption(load):
    entry = load(_line(timed_caption=[], caption="a star"))[0]
    assert entry["captions"] == ["a star"] and entry["traces"][0]["utterances"] == []


def test_a_caption_that_differs_from_its_utterances_is_kept_and_counted(load, caplog):
    entry = load(_line(caption="A star."), _line(caption="Star!"), _line())[0]
    assert entry["captions"][0] == "A star." and entry["traces"][0]["utterances"] == [*WORDS]
    assert "2 captions that differ from their utterances" in caplog.text and "line 1" in caplog.text


@pytest.mark.parametrize("caption", ["", None])
def test_a_missing_caption_is_what_was_said(load, caption):
    assert load(_line(caption=caption))[0]["captions"] == ["a star"]


def test_a_trace_without_any_word_is_left_out_and_counted(load, caplog):
    dicts = load(_line(), _line("ADE_train_1", words=()), _line(words=()))
    assert [len(entry["captions"]) for entry in dicts] == [1]
    assert (
        "2 narratives without a caption, left out" in caplog.text
        and "narratives.jsonl, line 2" in caplog.text
    )


def test_points_whose_times_run_backwards_are_sorted_and_counted(load, caplog):
    points = [(0.1, 0.1, 0.3), (0.2, 0.2, 0.1), (0.3, 0.3, 0.1), (0.4, 0.4, 0.2)]
    found = load(_line(), _line(points=points))[0]["traces"][1]["points"]
    assert found[:, 0].tolist() == np.float32([0.2, 0.3, 0.4, 0.1]).tolist()
    assert (
        "1 narratives with points whose times run backwards" in caplog.text
        and "narratives.jsonl, line 2" in caplog.text
    )


@pytest.mark.parametrize("start, end", [(0.5, 0.1), (math.nan, 1.0)])
def test_words_whose_time_ends_before_it_starts_are_kept_and_counted(load, caplog, start, end):
    assert len(_trace(load(_line(words=[*WORDS, ("bright", start, end)])))["utterances"]) == 3
    assert (
        "1 narratives with words whose time ends before it starts" in caplog.text
        and "line 1" in caplog.text
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300, None])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_points_that_are_not_finite_numbers_are_left_out_and_counted(load, caplog, value, where):
    broken = [0.1, 0.2, 0.3]
    broken[where] = value
    assert np.array_equal(
        _trace(load(_line(points=[broken, *POINTS])))["points"], np.float32(POINTS)
    )
    assert "not finite numbers" in caplog.text and "narratives.jsonl, line 1" in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        [1],
        "null",
        {"caption": "a star"},
        _line(timed_caption=[{"utterance": "a"}]),
        _line(timed_caption=[{"utterance": "a", "start_time": None, "end_time": 1}]),
        _line(timed_caption="a star"),
        _line(caption=3),
        _line(traces=[[{"x": 0.1, "y": 0.2}]]),
        _line(traces=[[{"x": "left", "y": 0.2, "t": 0.1}]]),
        _line(traces=[{"x": 0.1, "y": 0.2, "t": 0.1}]),
    ],
    ids=lambda line: str(line)[-60:],
)
def test_a_line_of_another_form_is_an_error_that_names_it(load, line):
    with pytest.raises(
        UserError, match=r'(?s)narratives\.jsonl, line 2 is not a Localized.*Expected \{"image_id"'
    ):
        load(_line(), line)


@pytest.mark.parametrize("line", ['{"image_id": "7", "capt', "<html>"])
def test_a_line_that_is_not_json_is_an_error_that_names_it(load, line):
    with pytest.raises(UserError, match=r"narratives\.jsonl, line 3 is not JSON"):
        load(_line(), "", line)


def test_bytes_that_are_no_text_are_an_error(tmp_path, images):
    (tmp_path / "broken.jsonl").write_bytes(b"\xff\xd8\xff\xe0\n")
    with pytest.raises(UserError, match="line 1 is not UTF-8 text"):
        load_narratives(tmp_path / "broken.jsonl", images)


def test_missing_images_are_listed_with_their_lines_and_left_out_up_to_a_share(load, caplog):
    lines = [_line(), _line("99"), _line("ADE_train_1"), _line("99"), _line("ghost")]
    assert [entry["image_id"] for entry in load(*lines, max_missing=0.5)] == [7, "ADE_train_1"]
    for said in (
        "2 of 4 narrated images are not in",
        r"99 (",
        "narratives.jsonl, line 2)",
        "line 5)",
    ):
        assert said in caplog.text
    with pytest.raises(
        UserError, match=r"(?s)2 of 4 narrated images.*line 2\).*0\.49 may be missing"
    ):
        load(*lines, max_missing=0.49)


def test_missing_images_are_left_to_the_loader_under_the_name_they_should_have(
    load, images, caplog
):
    dicts = load(_line("99"), _line("ghost"))
    assert [entry["file_name"] for entry in dicts] == [
        str(images / "000000000099.jpg"),
        str(images / "ghost.jpg"),
    ]
    assert all("height" not in entry for entry in dicts) and "2 of 2 narrated images" in caplog.text


def test_a_long_list_of_missing_images_is_cut(load):
    with pytest.raises(UserError, match=r"line 10\)\n  and 15 more"):
        load(*(_line(str(number)) for number in range(100, 125)), max_missing=0.01)


def test_sizes_are_those_of_the_image_as_it_is_shown(load, images):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(images / "turned.jpg", exif=exif)
    (entry,) = load(_line("turned"))
    assert (entry["height"], entry["width"]) == (40, 30)


def test_a_broken_image_is_left_to_training(load, images):
    (images / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (entry,) = load(_line("broken"))
    assert "height" not in entry and entry["captions"] == ["a star"]


def test_the_grounding_of_words_is_kept(load):
    assert _trace(load(_line(grounding=[None, 12])))["grounding"] == [None, 12]


def _write_parts(folder, count, total):
    for number in reversed(range(count)):
        text = json.dumps(_line(words=[(f"part{number}", 0.0, 0.1)]))
        (folder / f"narratives-{number:05d}-of-{total:05d}.jsonl").write_text(text)
    return folder / "narratives-*-of-*.jsonl"


def test_the_parts_of_a_pattern_are_read_in_order(tmp_path, images):
    assert load_narratives(_write_parts(tmp_path, 3, 3), images)[0]["captions"] == [
        "part0",
        "part1",
        "part2",
    ]


def test_a_pattern_with_parts_missing_is_an_error_but_parts_may_be_named(tmp_path, images):
    pattern = _write_parts(tmp_path, 2, 4)
    with pytest.raises(
        UserError, match=f"2 of 4 parts are in {tmp_path}: narratives-00000-of-00004.jsonl"
    ):
        load_narratives(pattern, images)
    assert load_narratives([tmp_path / "narratives-00001-of-00004.jsonl"], images)[0][
        "captions"
    ] == ["part1"]


@pytest.mark.parametrize("name", ["nothing.jsonl", "nothing-*.jsonl"])
def test_a_missing_file_says_the_folder_and_the_variable(tmp_path, images, name):
    with pytest.raises(
        UserError, match=f"(?s)no nothing.*jsonl in {tmp_path}\n.*DETECTRON2_DATASETS"
    ):
        load_narratives(tmp_path / name, images)


def test_a_missing_folder_of_images_is_an_error(tmp_path):
    (tmp_path / "narratives.jsonl").write_text(json.dumps(_line()))
    with pytest.raises(UserError, match=f"no folder of images {tmp_path}/nowhere"):
        load_narratives(tmp_path / "narratives.jsonl", tmp_path / "nowhere")


@pytest.mark.parametrize("name, json_file", [("a.jsonl", True), ("a-*.jsonl", False)])
def test_registered_narratives_are_read_only_when_used(tmp_path, images, name, json_file):
    register_narratives("test_narratives_lazy", tmp_path / name, images, made_by="hand")
    try:
        metadata = MetadataCatalog.get("test_narratives_lazy")
        assert metadata.evaluator_type == "captions" and metadata.made_by == "hand"
        assert metadata.get("json_file") == (str(tmp_path / name) if json_file else None)
        (tmp_path / name.replace("*", "1")).write_text(json.dumps(_line()))
        assert len(DatasetCatalog.get("test_narratives_lazy")) == 1
    finally:
        DatasetCatalog.remove("test_narratives_lazy")
        MetadataCatalog.remove("test_narratives_lazy")


def test_real_narrations_are_read_whole(samples, caplog):
    folder = samples / "vidln_sample"
    with caplog.at_level(logging.INFO, logger="virtex_det"):
        dicts = load_narratives(
            folder / "derived_localized_narratives.jsonl", folder / "images", max_missing=0.0
        )
    traces = [trace for entry in dicts for trace in entry["traces"]]
    assert len(dicts) == 17 and len(traces) == 22
    assert sum(len(trace["points"]) for trace in traces) == 6080
    assert all((np.diff(trace["points"][:, 2]) >= 0).all() for trace in traces)
    assert (dicts[0]["height"], dicts[0]["width"]) == (360, 640)
    assert "Loaded 17 narrated images" in caplog.text


def test_two_ids_of_one_image_are_refused(load):
    with pytest.raises(
        UserError, match=r"line 2: image ids '7' and '000000000007' are the same image"
    ):
        load(_line("7"), _line("000000000007"))


def test_two_images_of_one_name_are_refused_where_one_is_meant(load, images):
    (images / "000000000007.png").touch()
    with pytest.raises(UserError, match=r"000000000007\.jpg and 000000000007\.png"):
        load(_line("7"))


@pytest.mark.parametrize("image_id", [None, True, 7.0, [7], "", {}])
def test_an_image_id_that_is_none_is_refused_with_its_line(load, image_id):
    with pytest.raises(UserError, match="line 1 has image_id"):
        load(_line(image_id=image_id))


def test_digits_of_other_scripts_are_a_name_and_no_number(load, caplog):
    (entry,) = load(_line("７"))
    assert entry["image_id"] == "７" and entry["file_name"].endswith("７.jpg")


def test_a_line_nested_without_end_is_refused(load):
    with pytest.raises(UserError, match=r"line 1 is not JSON.*nested too deep"):
        load("[" * 100_000)


def test_points_in_pixels_are_said(load, caplog):
    load(_line(points=[(-0.2, 0.5, 0.1), (1.3, 0.5, 0.2)]))
    assert "not pixels" not in caplog.text
    load(_line(points=[(320, 240, 0.1), (330, 250, 0.2)]))
    assert (
        "1 narratives with points far outside the image: x and y are fractions of its sides, not "
        "pixels" in caplog.text
    )
