import json
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.inference.conftest import write_run
from virtex_det.cli.predict import main
from virtex_det.data.pictures import read_rgb
from virtex_det.data.videos import read_frames, writing_video
from virtex_det.errors import UserError


@pytest.fixture
def run(detector_cfg, tmp_path):
    return write_run(detector_cfg(), tmp_path / "detector")


ALL = ("TEST.DETECTIONS_PER_IMAGE", 10_000)


def predict(*words):
    main([str(word) for word in words])


def test_a_run_and_a_folder_become_detections_and_pictures(run, scenes, tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    words = (scenes / "val", tmp_path / "broken.jpg", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    predict("--run", run, "--output", tmp_path / "out", "--draw", "--threshold", 0, *words)
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    printed = capsys.readouterr().out
    assert f"{len(entries)} detections in 4 pictures, 1 skipped." in printed
    assert "counts.csv, pictures/ in" in printed
    assert entries and len(list((tmp_path / "out" / "pictures").iterdir())) == 4


def test_a_threshold_below_the_models_own_is_reached(detector_cfg, scenes, tmp_path):
    run = write_run(detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.99), tmp_path / "detector")
    words = ("--run", run, scenes / "val", "--output")
    predict(*words, tmp_path / "own")
    predict(*words, tmp_path / "all", "--threshold", 0)
    own, everything = (
        json.loads((tmp_path / name / "detections.json").read_text()) for name in ("own", "all")
    )
    assert not own and everything
    assert not (tmp_path / "all" / "pictures").exists()


def test_weights_come_with_their_config(run, scenes, tmp_path):
    picture = next((scenes / "val").glob("*.png"))
    options = ("--config-file", run / "config.yaml", "--output", tmp_path / "out")
    predict(*options, picture, "MODEL.WEIGHTS", run / "model_final.pth")
    assert (tmp_path / "out" / "detections.json").exists()


def test_ids_of_an_annotation_file_are_written(run, scenes, tmp_path):
    annotations = scenes / "annotations" / "instances_val.json"
    files = ("--annotations", annotations, "--output", tmp_path / "out")
    predict("--run", run, scenes / "val", *files, *"--threshold 0".split())
    ids = {image["id"] for image in json.loads(annotations.read_text())["images"]}
    assert {
        entry["image_id"]
        for entry in json.loads((tmp_path / "out" / "detections.json").read_text())
    } <= ids


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "truth.json does not exist"),
        ("no JSON", "truth.json"),
        ({"images": [], "annotations": [], "categories": []}, r"4 of 4 pictures .*has no images"),
    ],
)
def test_an_annotation_file_is_read_before_the_model(
    content, message, run, scenes, tmp_path, monkeypatch
):
    file = tmp_path / "truth.json"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    def load(*arguments, **options):
        raise AssertionError("the model is loaded first")

    monkeypatch.setattr("virtex_det.cli.predict.Detector", load)
    with pytest.raises(UserError, match=f"(?s){message}"):
        predict("--run", run, scenes / "val", "--annotations", file, "--output", tmp_path / "out")


def test_zoo_weights_without_a_detector_are_refused_with_what_makes_one(scenes, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["virtex-det predict"])
    with pytest.raises(
        UserError, match=r"needs a detector(?s:.*)virtex-det train with MODEL.WEIGHTS virtex://"
    ):
        predict("--run", "virtex://bicaptioning_R_50_L1_H2048", scenes / "val")


def test_heads_left_at_random_are_refused(run, scenes, tmp_path):
    weights = torch.load(run / "model_final.pth", weights_only=True)["model"]
    backbone = {name: tensor for name, tensor in weights.items() if name.startswith("backbone.")}
    torch.save({"model": backbone}, run / "model_final.pth")
    with pytest.raises(UserError, match="does not fill the whole model"):
        predict("--run", run, scenes / "val", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_on_standard_input_and_data_sets_by_name(run, scenes, tmp_path, monkeypatch):
    pictures = sorted((scenes / "val").glob("*.png"))
    monkeypatch.setattr(sys, "stdin", [f"{path}\n" for path in pictures[:2]])
    predict("--run", run, "-", "--output", tmp_path / "listed")
    images = json.loads((tmp_path / "listed" / "images.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [str(path) for path in pictures[:2]]
    predict("--run", run, f"folder:{scenes / 'val'}", "--output", tmp_path / "folder")
    images = json.loads((tmp_path / "folder" / "images.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2, 3, 4]


def test_a_video_becomes_frames_with_times_and_a_drawn_video(run, scenes, tmp_path):
    pytest.importorskip("av")
    with writing_video(tmp_path / "a film.mp4", Fraction(5)) as writer:
        for number, path in enumerate(sorted((scenes / "val").glob("*.png"))):
            writer.write(read_rgb(path), number / 5)
    words = ("--threshold", 0, "--draw", "--output", tmp_path / "out")
    predict("--run", run, tmp_path / "a film.mp4", *words)
    images = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert [(each["id"], each["frame"], each["seconds"]) for each in images] == [
        (number + 1, number, pytest.approx(number / 5)) for number in range(4)
    ]
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {entry["image_id"] for entry in entries} <= {1, 2, 3, 4} and entries
    drawn, plain = (
        list(read_frames(path))
        for path in (tmp_path / "out" / "videos" / "a_film.mp4", tmp_path / "a film.mp4")
    )
    assert [frame.seconds for frame in drawn] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert np.abs(drawn[0].pixels.astype(int) - plain[0].pixels).max() > 50
    assert "a film.mp4, frame 3" in (tmp_path / "out" / "counts.csv").read_text()


def test_an_unreadable_video_is_refused_before_any_work(run, tmp_path):
    pytest.importorskip("av")
    (tmp_path / "film.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(UserError, match=r"film.mp4 cannot be read as a video"):
        predict("--run", run, tmp_path / "film.mp4", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_data_set_keeps_its_ids(run, scenes, tmp_path):
    annotations = scenes / "annotations" / "instances_val.json"
    truth = json.loads(annotations.read_text())
    words = (f"coco:{annotations}:{scenes / 'val'}", "--output", tmp_path / "out")
    predict("--run", run, *words)
    beside = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {each["id"] for each in beside["images"]} == {each["id"] for each in truth["images"]}
    assert beside["categories"] == [
        {"id": each["id"], "name": each["name"]} for each in truth["categories"]
    ]


def test_scores_by_class_and_pictures_behind_them(run, scenes, tmp_path):
    words = ("--classes", "star, ring", "--maximum", 3, "--output", tmp_path / "out")
    predict("--run", run, *words, "--threshold", "star=0.01", 0, scenes / "val", *ALL)
    names = json.loads((tmp_path / "out" / "images.json").read_text())["categories"]
    star, ring = (
        next(each["id"] for each in names if each["name"] == name) for name in ("star", "ring")
    )
    entries = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert entries and {entry["category_id"] for entry in entries} <= {star, ring}
    assert all(entry["score"] >= 0.01 for entry in entries if entry["category_id"] == star)
    assert len(entries) <= 3 * 4


@pytest.mark.parametrize(
    "words", [("--classes", "stars"), ("--threshold", "Stra=0.5")], ids=["classes", "threshold"]
)
def test_an_unknown_class_is_refused_with_the_nearest(words, run, scenes, tmp_path):
    with pytest.raises(UserError, match=r"has no class .*\nDid you mean .*star"):
        predict("--run", run, scenes / "val", *words, "--output", tmp_path / "out")


def test_a_captioner_is_refused_with_what_takes_it(pretraining_cfg, scenes, tmp_path):
    captioner = write_run(pretraining_cfg(), tmp_path / "captioner")
    with pytest.raises(UserError, match=r"is a captioning model .*\nUse virtex_det.Captioner"):
        predict("--run", captioner, scenes / "val", "--output", tmp_path / "out")


def test_an_output_folder_with_other_things_is_refused_before_any_work(run, scenes):
    with pytest.raises(UserError, match=r"holds other things: .*config.yaml"):
        predict("--run", run, scenes / "val", "--output", run)


@pytest.mark.parametrize(
    "words", [("photo.jpg",), ("--run", "a", "--config-file", "b", "photo.jpg"), ("--run", "a")]
)
def test_a_detector_and_pictures_are_needed(words, capsys):
    with pytest.raises(SystemExit):
        predict(*words)
    assert "error: name the" in capsys.readouterr().err


@pytest.mark.parametrize("score", ["2", "-0.1", "x", "nan"])
def test_an_invalid_score_is_refused(score, capsys):
    with pytest.raises(SystemExit):
        predict("--run", "output", "photo.jpg", f"--threshold={score}")
    assert f"'{score}' is not a number from 0 to 1" in capsys.readouterr().err
