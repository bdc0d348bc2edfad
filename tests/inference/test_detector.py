"""The detector: the numbers of an evaluation, in whatever form the pictures come."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNNWithTTA
from PIL import Image

import virtex_det as vd
from tests.inference.conftest import write_run
from virtex_det.config import override
from virtex_det.data.images import image_tensor
from virtex_det.data.videos import read_frames, writing_video
from virtex_det.engine import evaluate
from virtex_det.errors import UserError
from virtex_det.image_files import BrokenImage


def category_ids(dataset):
    metadata = MetadataCatalog.get(dataset)
    return dict(
        zip(metadata.thing_classes, sorted(metadata.thing_dataset_id_to_contiguous_id), strict=True)
    )


def same(ours, theirs):
    assert np.array_equal(ours.boxes, theirs.boxes) and np.array_equal(ours.scores, theirs.scores)
    assert ours.names == theirs.names and ours.rles == theirs.rles
    return True


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"INPUT.MIN_SIZE_TEST": 100, "INPUT.MAX_SIZE_TEST": 120, "INPUT.FAST_RESIZE": True},
        {"INPUT.FORMAT": "BGR", "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]},
        {"SOLVER.AMP.ENABLED": True, "SOLVER.AMP.DTYPE": "bfloat16"},
        {"MODEL.MASK_ON": False},
    ],
    ids=["plain", "fast resize", "BGR", "bf16", "boxes alone"],
)
def test_detections_are_those_of_the_evaluation_to_the_digit(options, detector_cfg, tmp_path):
    options = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0, **options}
    cfg = override(detector_cfg("OUTPUT_DIR", tmp_path / "run"), options)
    run = write_run(cfg, tmp_path / "run")
    results = evaluate(override(cfg, {"MODEL.WEIGHTS": run / "model_final.pth"}))
    written = json.loads(
        (run / "inference" / "scenes_val" / "coco_instances_results.json").read_text()
    )
    detector, ids = vd.Detector(run), category_ids("scenes_val")
    found = [
        entry
        for image in DatasetCatalog.get("scenes_val")
        for entry in detector(image["file_name"]).to_coco(image["image_id"], ids)
    ]
    assert found == written and len(found) > 40
    assert ("segmentation" in found[0]) == cfg.MODEL.MASK_ON
    again = vd.evaluate(found, MetadataCatalog.get("scenes_val").json_file)
    assert {task: again[task]["AP"] for task in again} == {
        task: results[task]["AP"] for task in results
    }


def test_a_file_its_pixels_and_its_image_give_the_same(detector, photos):
    from_file = detector(photos[0])
    assert len(from_file) > 10
    pixels = np.asarray(Image.open(photos[0]).convert("RGB"))
    assert same(detector(pixels), from_file) and same(detector(Image.open(photos[0])), from_file)
    assert from_file.file_name == str(photos[0]) and detector(pixels).file_name == ""
    with pytest.raises(AssertionError):  # RGB and BGR are not the same to the model
        same(detector(pixels[:, :, ::-1]), from_file)


def test_lists_folders_and_streams_give_what_single_pictures_give(detector, photos):
    singles = [detector(photo) for photo in photos]
    for found in (detector(photos), detector(photos[0].parent), list(detector.stream(photos))):
        assert [each.file_name for each in found] == [str(photo) for photo in photos]
        assert all(same(ours, single) for ours, single in zip(found, singles, strict=True))
    assert detector([]) == []


def test_a_stream_works_on_nothing_before_it_is_asked(detector, photos):
    stream = detector.stream([*photos, "gone.jpg"])
    assert [next(stream).file_name for _ in photos] == [str(photo) for photo in photos]
    with pytest.raises(BrokenImage, match="There is no picture gone.jpg"):
        next(stream)


def test_a_broken_file_in_a_list_is_named_first_and_may_be_left_out(
    detector, photos, tmp_path, caplog
):
    broken = tmp_path / "cut.png"
    broken.write_bytes(photos[0].read_bytes()[:300])
    given = [photos[0], broken, photos[1]]
    with pytest.raises(
        UserError, match=r"(?s)1 of 3 pictures cannot be used; nothing was done:.*cut\.png"
    ):
        detector(given)
    found = detector(given, skip_broken=True)
    assert [each.file_name for each in found] == [str(photos[0]), str(photos[1])]
    assert f"left out: {broken}" in caplog.text


def test_a_file_whose_header_hides_the_damage_is_skipped_as_well(
    detector, photos, tmp_path, caplog
):
    whole = bytearray(photos[0].read_bytes())
    middle = whole.index(b"IDAT") + 12
    whole[middle : middle + 40] = bytes(40)
    (tmp_path / "damaged.png").write_bytes(whole)
    assert len(detector([photos[0], tmp_path / "damaged.png"], skip_broken=True)) == 1
    assert "left out" in caplog.text and "damaged.png" in caplog.text
    with pytest.raises(BrokenImage, match=r"damaged\.png"):
        detector([photos[0], tmp_path / "damaged.png"])


def test_an_empty_folder_is_an_error(detector, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no image"):
        detector(tmp_path / "empty")


@pytest.mark.parametrize("shape", [(1, 1), (3, 900), (2000, 3000)])
def test_pictures_of_any_shape_have_boxes_inside_them(shape, detector):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = detector(pixels)
    height, width = shape
    assert found.image_size == shape
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()


def test_a_grey_picture_is_read(detector, photos, tmp_path):
    Image.open(photos[0]).convert("L").save(tmp_path / "grey.png")
    assert same(detector(tmp_path / "grey.png"), detector(Image.open(photos[0]).convert("L")))


def test_what_it_is_can_be_seen(detector, detector_run):
    assert repr(detector) == (
        f"Detector(GeneralizedRCNN, 8 classes, {detector_run / 'model_final.pth'}, on cpu)"
    )
    assert detector.classes[:2] == tuple(MetadataCatalog.get("scenes_val").thing_classes[:2])
    assert detector.report.format == "detector" and not detector.report.missing
    assert detector.device == torch.device("cpu")


def test_its_predictor_takes_bgr_as_detectron2s_does(detector, photos):
    pixels = np.asarray(Image.open(photos[0]).convert("RGB"))
    instances = detector.predictor(pixels[:, :, ::-1])["instances"]
    assert torch.equal(instances.pred_boxes.tensor, torch.from_numpy(detector(pixels).boxes))


def test_weights_without_heads_are_refused(detector_run):
    content = torch.load(detector_run / "model_final.pth", weights_only=True)["model"]
    kept = {name: value for name, value in content.items() if name.startswith("backbone.")}
    torch.save({"model": kept}, detector_run / "model_final.pth")
    with pytest.raises(UserError, match="does not fill the whole model"):
        vd.Detector(detector_run)


def test_weights_cut_short_are_refused(detector_run):
    whole = (detector_run / "model_final.pth").read_bytes()
    (detector_run / "model_final.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"model_final\.pth"):
        vd.Detector(detector_run)


def test_the_config_of_another_architecture_is_refused(detector_run):
    other = {"MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.WIDTH_PER_GROUP": 8}
    with pytest.raises(UserError, match="ResNet-18, the config builds a ResNet-50"):
        vd.Detector(detector_run, overrides=other)


def test_a_model_that_finds_no_objects_is_named(detector, photos, monkeypatch):
    monkeypatch.setattr(detector, "_model", lambda batch: [{"sem_seg": None}])
    with pytest.raises(
        UserError,
        match="returned sem_seg, but no instances. GeneralizedRCNN is not an object detector",
    ):
        detector(photos[0])


def test_a_batch_of_pictures_of_one_size_gives_what_each_gives_alone(detector_run, photos):
    alone = vd.Detector(detector_run)(photos)
    together = vd.Detector(detector_run, batch_size=3)(photos)
    for ours, single in zip(together, alone, strict=True):
        assert ours.file_name == single.file_name and len(ours) == len(single) > 10
        assert np.abs(ours.boxes - single.boxes).max() < 1e-2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        # 0 would find nothing in silence
        ({"batch_size": 0}, "batch_size is 0; expected a whole number from 1"),
        ({"batch_size": 2.0}, "batch_size is 2.0"),
        ({"tile": "64"}, "The side of a tile is '64'"),
        ({"tile": 64, "tile_overlap": 1.5}, "The overlap of tiles is 1.5"),
        ({"tile_overlap": 8}, "an overlap of tiles, but no tiles"),
        ({"tta": "no"}, "tta is 'no'; expected True or False"),
    ],
)
def test_arguments_that_cannot_be_are_refused_before_anything_is_loaded(given, message):
    with pytest.raises(UserError, match=message):
        vd.Detector("/no/run", **given)


def test_augmentation_at_test_time_is_detectron2s(detector_run, photos):
    keys = {"TEST.AUG.MIN_SIZES": [64, 96], "TEST.AUG.MAX_SIZE": 200}
    detector = vd.Detector(detector_run, overrides=keys, tta=True)
    model = GeneralizedRCNNWithTTA(detector.cfg, detector.predictor.model)
    resized = T.AugInput(np.asarray(Image.open(photos[0]).convert("RGB")))
    height, width = resized.image.shape[:2]
    detector.predictor.aug(resized)
    image = image_tensor(resized.image, detector.cfg.INPUT.FORMAT)
    with torch.no_grad():
        [expected] = model([{"image": image, "height": height, "width": width}])
    found, plain = detector(photos[0]), vd.Detector(detector_run)(photos[0])
    assert np.array_equal(found.boxes, expected["instances"].pred_boxes.tensor.numpy())
    assert np.array_equal(found.masks, expected["instances"].pred_masks.numpy())
    assert len(found) > 10 and found.boxes.tolist() != plain.boxes.tolist()


def test_augmentation_that_detectron2_lacks_is_refused(detector_run, detector_cfg, tmp_path):
    with pytest.raises(UserError, match="exclude each other"):
        vd.Detector(detector_run, tta=True, tile=64)
    levels = ("MODEL.RETINANET.IN_FEATURES", ["p3", "p4", "p5", "p6"])
    classes = ("MODEL.RETINANET.NUM_CLASSES", 8)
    cfg = detector_cfg("MODEL.META_ARCHITECTURE", "RetinaNet", *levels, *classes)
    run = write_run(cfg, tmp_path / "retinanet")
    with pytest.raises(UserError, match="no test-time augmentation for RetinaNet"):
        vd.Detector(run, tta=True)


def test_frames_of_a_video_are_pictures(detector, photos, tmp_path):
    pytest.importorskip("av")
    pictures = [np.asarray(Image.open(photo).convert("RGB")) for photo in photos[:3]]
    with writing_video(tmp_path / "film.mp4", Fraction(5)) as writer:
        for number, pixels in enumerate(pictures):
            writer.write(pixels, number / 5)
    decoded = [frame.pixels for frame in read_frames(tmp_path / "film.mp4")]
    found = list(detector.stream(tmp_path / "film.mp4"))
    assert [each.frame for each in found] == [0, 1, 2]
    assert {each.file_name for each in found} == {str(tmp_path / "film.mp4")}
    assert all(same(ours, detector(pixels)) for ours, pixels in zip(found, decoded, strict=True))
    assert found[1].draw().size == decoded[1].shape[1::-1]
    assert max(found[1].thumbnail(1000).size) == 1000
    listed = detector(tmp_path / "film.mp4")
    assert len(listed) == 3 and same(listed[2], found[2])
    with pytest.raises(UserError, match="pass the picture"):
        listed[2].draw()
    assert listed[2].draw(decoded[2]).size == found[2].draw().size


def test_a_file_name_that_is_not_utf_8_can_be_drawn_again(detector, photos, tmp_path):
    path = tmp_path / b"caf\xe9.png".decode(errors="surrogateescape")
    try:
        path.write_bytes(photos[0].read_bytes())
    except OSError:
        pytest.skip("this file system has names of text only")
    [found] = detector([path])
    assert found[:1].draw().size == Image.open(photos[0]).size
