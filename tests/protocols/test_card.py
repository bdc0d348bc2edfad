from pathlib import Path

import pytest

from virtex_det.engine import load_config
from virtex_det.protocols.card import protocol_card
from virtex_det.protocols.catalog import protocols

ROOT = Path(__file__).resolve().parents[2]


def card(name, *options):
    return protocol_card(
        load_config(str(ROOT / "configs" / f"{name}.yaml"), [str(option) for option in options])
    )


def test_the_card_of_virtexs_coco_protocol():
    found = card("detectron2/coco_segm_default_init_2x")
    assert found["detector"] == "Mask R-CNN FPN, ResNet-50"
    assert found["heads"] == "box 2 fc, norm none; mask 4 conv, norm none"
    assert found["norm"].startswith(
        "backbone SyncBN, FPN SyncBN; nothing frozen; statistics renewed over 200 batches"
    )
    assert found["schedule"].startswith(
        "180,000 iterations, about 24 epochs, rate times 0.1 at 120,000 and 160,000"
    )
    assert found["batch"] == "16 images"
    assert found["learning rate"].startswith("0.02, SGD with momentum 0.9, weight decay 0.0001")
    assert found["sizes"].startswith(
        "training: short side 640 to 800 px in 6 sizes, long side at most 1333; test: 800"
    )
    assert found["metric"].startswith("COCO AP")
    assert "118,287 training" in found["data"]
    assert "VirTex" in found["paper"] and "sec. 4.2" in found["paper"]
    assert "departs" not in found


def test_what_the_protocols_of_one_name_differ_in_is_on_their_cards():
    assert "stem to res2 frozen" in card("detectron2/coco_segm_d2_default_1x")["norm"]
    assert card("detectron2/coco_segm_4conv1fc_1x")["heads"].startswith(
        "box 4 conv, 1 fc, norm SyncBN; mask 4 conv"
    )
    assert "weight decay 2.5e-05" in card("detectron2/coco_segm_soco_1x")["learning rate"]
    assert card("detectron2/coco_segm_vissl_1x")["learning rate"].startswith("0.001,")
    assert "warm-up over 100" in card("detectron2/coco_segm_vissl_1x")["schedule"]
    assert card("detectron2/voc_det_default_init_24k")["heads"] == "res5, one more norm after it"


def test_voc_and_lvis_name_their_own_metric():
    assert "11-point" in card("detectron2/voc_det_default_init_24k")["metric"]
    assert (
        "area under the curve"
        in card("detectron2/voc_det_default_init_24k", "DATASETS.TEST", ("voc_2012_val",))["metric"]
    )
    assert "APr" in card("detectron2/lvis_segm_default_init_2x")["metric"]


def test_a_fraction_of_the_labels_has_more_epochs_and_is_on_the_card():
    found = card("detectron2/coco_segm_default_init_2x", "DATASETS.TRAIN_FRACTION", 0.1)
    assert "about 243 epochs" in found["schedule"]
    assert found["data"].endswith("; 0.1 of the training images")


def test_a_departure_is_in_the_words_and_listed():
    found = card(
        "detectron2/coco_segm_default_init_2x", "SOLVER.BASE_LR", 0.01, "MODEL.RESNETS.DEPTH", 101
    )
    assert found["learning rate"].startswith("0.01,")
    assert found["detector"].endswith("ResNet-101")
    assert found["departs"] == "MODEL.RESNETS.DEPTH 101, SOLVER.BASE_LR 0.01"


def test_other_data_have_no_epochs_and_no_version_of_the_protocols_data():
    found = card("detectron2/coco_mini_segm_smoke")
    assert "epochs" not in found["schedule"]
    assert found["data"] == "coco_mini_train / coco_mini_val"


def test_an_svm_probe_has_no_schedule():
    found = card("probes/voc07_svm")
    assert found["detector"].startswith("linear SVMs on frozen features")
    assert not {"schedule", "batch", "learning rate", "norm"} & found.keys()


def test_pretraining_has_a_card_without_a_protocol():
    found = card("pretrain/scenes_bicaptioning")
    assert found["protocol"] == "none"
    assert "paper" not in found


@pytest.mark.parametrize("protocol", protocols().values(), ids=protocols())
def test_every_protocol_has_a_card_of_its_own_in_one_line_per_heading(protocol):
    found = protocol_card(load_config(str(ROOT / protocol.config), []))
    assert found["protocol"] == protocol.id
    assert {"detector", "sizes", "metric", "data", "paper"} <= found.keys()
    assert all(words.strip() and "\n" not in words and "|" not in words for words in found.values())


def test_no_two_protocols_have_the_same_words():
    words = [
        tuple(
            value
            for key, value in protocol_card(load_config(str(ROOT / p.config), [])).items()
            if key in DECIDING
        )
        for p in protocols().values()
    ]
    assert len(set(words)) == len(words)


DECIDING = {
    "detector",
    "heads",
    "norm",
    "schedule",
    "batch",
    "learning rate",
    "sizes",
    "metric",
    "data",
}
