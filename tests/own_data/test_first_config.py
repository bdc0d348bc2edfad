import pytest
import torch

from tests.data.datasets.conftest import coco_content
from virtex_det.config import load_config
from virtex_det.errors import UserError
from virtex_det.modeling import build_model
from virtex_det.own_data.config_text import config_text
from virtex_det.own_data.first_config import Machine, choose
from virtex_det.own_data.look import Look
from virtex_det.own_data.start_weights import Start, find_start
from virtex_det.own_data.survey import survey

LAPTOP, CLUSTER = Machine(0, 0, 4), Machine(8, 80, 64)
RANDOM = find_start("")


def look_of(train, val=()):
    return Look((survey(train),), tuple(map(survey, val)), [], (), ())


def values(first):
    return {choice.key: choice.value for choice in first.choices}


@pytest.fixture
def boxes(yolo):
    """Twenty images with a box each, of 12 x 8 pixels in 60 x 40."""
    return look_of(yolo({f"{number}.jpg": "0 0.5 0.5 0.2 0.2" for number in range(20)}))


def test_masks_and_classes_are_those_of_the_data(coco, boxes):
    found = values(choose(look_of(coco(coco_content())), RANDOM, LAPTOP, "run"))
    assert found["MODEL.MASK_ON"] and found["MODEL.ROI_HEADS.NUM_CLASSES"] == 2
    assert not values(choose(boxes, RANDOM, LAPTOP, "run"))["MODEL.MASK_ON"]


def test_the_schedule_is_epochs_times_images_by_batch(boxes):
    first = choose(boxes, RANDOM, LAPTOP, "run", epochs=12)
    assert first.cfg.SOLVER.IMS_PER_BATCH == 2 and first.cfg.SOLVER.MAX_ITER == 120
    assert first.cfg.SOLVER.STEPS == (80, 110) and first.cfg.SOLVER.WARMUP_ITERS == 12
    assert first.cfg.SOLVER.BASE_LR == pytest.approx(0.02 * 2 / 16)
    [why] = [choice.why for choice in first.choices if choice.key == "SOLVER.MAX_ITER"]
    assert why == "12 epochs x 20 images / 2"


def test_a_batch_is_shared_by_all_gpus_and_not_larger_than_the_data(boxes):
    assert choose(boxes, RANDOM, CLUSTER, "run").cfg.SOLVER.IMS_PER_BATCH == 16
    one = Machine(1, 8, 4)
    assert choose(boxes, RANDOM, one, "run").cfg.SOLVER.IMS_PER_BATCH in (2, 4)


def test_a_batch_too_small_for_statistics_keeps_those_of_the_weights(boxes):
    small, large = (
        choose(boxes, Start("w.pth", RANDOM.base, {}, ""), machine, "run").cfg
        for machine in (LAPTOP, CLUSTER)
    )
    assert small.MODEL.RESNETS.NORM == "FrozenBN" and not small.TEST.PRECISE_BN.ENABLED
    assert large.MODEL.RESNETS.NORM == "SyncBN" and large.TEST.PRECISE_BN.ENABLED
    assert choose(boxes, RANDOM, LAPTOP, "run").cfg.MODEL.RESNETS.NORM == "GN"


@pytest.mark.parametrize(("box", "side"), [("0.01 0.016", 1216), ("0.04 0.06", 480)])
def test_images_are_as_large_as_their_objects_need(box, side, yolo, write_image, tmp_path):
    name = yolo({"a.png": f"0 0.5 0.5 {box}"})
    write_image(tmp_path / "images" / "train" / "a.png", (1000, 640))
    cfg = choose(look_of(name), RANDOM, LAPTOP, "run").cfg
    assert cfg.INPUT.MIN_SIZE_TEST == side == max(cfg.INPUT.MIN_SIZE_TRAIN)
    assert cfg.INPUT.MAX_SIZE_TEST >= side * 5 // 3


def test_without_data_to_evaluate_on_nothing_is_evaluated(boxes):
    first = choose(boxes, RANDOM, LAPTOP, "run")
    assert first.cfg.DATASETS.TEST == () and first.cfg.TEST.EVAL_PERIOD == 0


def test_many_objects_in_an_image_raise_the_number_of_detections(yolo):
    name = yolo({"a.jpg": "\n".join(f"0 0.{place:03} 0.5 0.1 0.1" for place in range(100, 190))})
    assert choose(look_of(name), RANDOM, LAPTOP, "run").cfg.TEST.DETECTIONS_PER_IMAGE == 200


def test_small_is_an_r18_unless_the_weights_are_of_another_network(boxes):
    cfg = choose(boxes, RANDOM, LAPTOP, "run", small=True).cfg
    assert cfg.MODEL.RESNETS.DEPTH == 18 and max(cfg.INPUT.MIN_SIZE_TRAIN) <= 320
    start = find_start("bicaptioning_R_50_L1_H2048")
    assert choose(boxes, start, LAPTOP, "run", small=True).cfg.MODEL.RESNETS.DEPTH == 50


def test_images_without_an_object_are_an_error(yolo):
    with pytest.raises(UserError, match="no image of .* has an object"):
        choose(look_of(yolo({"a.jpg": ""})), RANDOM, LAPTOP, "run")


def test_the_file_reads_as_the_config_whatever_the_classes_are_called(yolo, tmp_path):
    settings = 'train: images/train\nnames: ["a: #b", "\\u2028c", "no"]\n'
    name = yolo({"a.jpg": "0 0.5 0.5 0.2 0.2"}, settings)
    first = choose(look_of(name), find_start("torchvision_resnet18"), LAPTOP, "run")
    file = tmp_path / "run.yaml"
    file.write_text(config_text(first, ["a head", "of two lines"]))
    assert load_config(file) == first.cfg
    text = file.read_text()
    assert text.startswith("# a head\n# of two lines\n_BASE_: detectron2/")
    assert all("\u2028" not in line for line in text.split("\n"))


def test_weights_are_a_name_or_a_file(tmp_path):
    start = find_start("virtex://torchvision_resnet18")
    assert start.weights == "virtex://torchvision_resnet18"
    assert start.keys["MODEL.RESNETS.DEPTH"] == 18
    clip = find_start("clip_RN50")
    assert "clip" in clip.base and load_config(clip.base).MODEL.CAPTION_RESNET.STEM == "clip"


def test_the_network_of_a_file_is_read_from_it(tmp_path):
    model = build_model(load_config(RANDOM.base, find_start("torchvision_resnet18").keys))
    backbone = {
        name.removeprefix("backbone.bottom_up."): tensor
        for name, tensor in model.state_dict().items()
        if name.startswith("backbone.bottom_up.")
    }
    torch.save(backbone, tmp_path / "w.pth")
    start = find_start(str(tmp_path / "w.pth"))
    assert start.weights == str(tmp_path / "w.pth") and start.base == RANDOM.base
    assert start.keys["MODEL.RESNETS.DEPTH"] == 18
    assert start.keys["MODEL.RESNETS.RES2_OUT_CHANNELS"] == 64


@pytest.mark.parametrize("weights", ["bicaptoning_R_50", "missing.pth"])
def test_unknown_weights_are_named_with_the_nearest(weights):
    with pytest.raises(UserError, match="neither a file nor a name of the model zoo"):
        find_start(weights)


def test_a_file_that_is_no_weights_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"w\.pth"):
        find_start(str(tmp_path / "w.pth"))
