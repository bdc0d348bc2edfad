"""Protocols told by the values of a config."""

from pathlib import Path

import pytest

from virtex_det.config import leaves
from virtex_det.config.roles import is_read
from virtex_det.engine import load_config
from virtex_det.protocols import matching as protocol_module
from virtex_det.protocols.catalog import protocols
from virtex_det.protocols.matching import FREE, nearest_protocol, protocol_id, settings_digits

ROOT = Path(__file__).resolve().parents[2]


def load(name, *options):
    return load_config(str(ROOT / "configs" / f"{name}.yaml"), [str(option) for option in options])


@pytest.mark.parametrize("protocol", protocols().values(), ids=protocols())
def test_the_config_of_a_protocol_has_exactly_its_id(protocol):
    cfg = load_config(str(ROOT / protocol.config), [])
    assert settings_digits(cfg) == protocol.settings, (
        "the config has changed: if that is meant, these are the digits"
    )
    assert protocol_id(cfg) == protocol.id


CHANGES = {
    "SOLVER.MAX_ITER": 90001,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.WEIGHT_DECAY": 0.001,
    "SOLVER.AMP.ENABLED": True,
    "MODEL.RESNETS.NORM": "GN",
    "MODEL.RESNETS.DEPTH": 101,
    "MODEL.BACKBONE.FREEZE_AT": 3,
    "MODEL.BF16": True,
    "INPUT.FAST_RESIZE": True,
    "INPUT.MIN_SIZE_TEST": 600,
    "TEST.DETECTIONS_PER_IMAGE": 50,
    "TEST.PRECISE_BN.NUM_ITER": 100,
    "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
}


@pytest.mark.parametrize(("key", "value"), CHANGES.items())
def test_one_key_changed_shows_in_the_id(key, value):
    cfg = load("detectron2/coco_segm_4conv1fc_1x", key, value)
    assert protocol_id(cfg) == f"coco-segm-1x-4conv1fc+{key}={value}"


@pytest.mark.parametrize(
    ("key", "values", "shown"),
    [
        (
            *(
                "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
                ("(2, 2, 3, 3)", "(2.0, 2, 3, 3)", "(2.0, 2.0, 3.0, 3.0)"),
            ),
            "(2.0,2.0,3.0,3.0)",
        ),
        (
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS",
            ("[[2, 3]]", "[[2.0, 3]]", "[[2.0, 3.0]]"),
            "(2.0,3.0)",
        ),
    ],
)
def test_whole_numbers_in_a_list_of_fractions_show_as_fractions(key, values, shown):
    ids = {protocol_id(load("detectron2/scenes_segm", key, value)) for value in values}
    assert ids == {f"scenes-segm+{key}={shown}"}


# Two are only valid with another key, and one changes the mapper, too.
NOT_ALONE = (
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS",
    "INPUT.CAPTION.HIDE_OTHER_WORDS",
    "MODEL.KEYPOINT_ON",
)


def test_keypoints_show_with_their_mapper():
    cfg = load("detectron2/scenes_segm", "MODEL.KEYPOINT_ON", True)
    departures = "DATALOADER.MAPPER=DatasetMapper+MODEL.KEYPOINT_ON=True"
    assert protocol_id(cfg) == f"scenes-segm+{departures}"


def test_every_key_is_either_a_runs_own_or_shows():
    # Of a config near to no other protocol, so that a changed key has no way to another one.
    for key, value in leaves(load("detectron2/scenes_segm")):
        if isinstance(value, bool) and key not in NOT_ALONE:
            cfg = load("detectron2/scenes_segm", key, not value)
            shows = key not in FREE and is_read(cfg, key)
            assert protocol_id(cfg) == (
                f"scenes-segm+{key}={not value}" if shows else "scenes-segm"
            )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.CAPTION.MAX_LENGTH", 40),
        ("INPUT.CLASSIFICATION.CROP_SIZE", 96),
        ("MODEL.TEXTUAL.HIDDEN_SIZE", 512),
        ("MODEL.RETINANET.NUM_CONVS", 2),
        ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 5),
        ("SOLVER.LOOKAHEAD.STEPS", 9),
        ("TEST.AUG.MAX_SIZE", 900),
    ],
)
def test_what_a_detector_does_not_read_does_not_change_its_id(key, value):
    assert protocol_id(load("detectron2/scenes_segm", key, value)) == "scenes-segm"


def test_what_is_switched_on_shows():
    name = protocol_id(
        load(
            "detectron2/scenes_segm", "SOLVER.LOOKAHEAD.ENABLED", True, "SOLVER.LOOKAHEAD.STEPS", 9
        )
    )
    assert name == "scenes-segm+SOLVER.LOOKAHEAD.ENABLED=True+SOLVER.LOOKAHEAD.STEPS=9"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.WEIGHTS", "virtex://bicaptioning_R_50_L1_H2048"),
        ("INPUT.FORMAT", "BGR"),
        ("MODEL.PIXEL_MEAN", [103.53, 116.28, 123.675]),
        ("SEED", 7),
        ("OUTPUT_DIR", "elsewhere"),
        ("DATALOADER.NUM_WORKERS", 9),
        ("DATASETS.TRAIN_FRACTION", 0.1),
        ("DATASETS.SUBSET_SEED", 4),
        ("TEST.METRICS_LIBRARY", "reference"),
    ],
)
def test_what_is_a_runs_own_does_not_change_the_id(key, value):
    assert protocol_id(load("detectron2/coco_segm_default_init_2x", key, value)) == "coco-segm-2x"


def test_up_to_three_departures_stand_in_alphabetical_order():
    options = (
        "SOLVER.BASE_LR",
        0.01,
        "INPUT.MIN_SIZE_TRAIN",
        (600, 700),
        "DATASETS.TEST",
        ("coco_mini_val",),
    )
    assert (
        protocol_id(load("detectron2/coco_segm_default_init_2x", *options))
        == "coco-segm-2x+DATASETS.TEST=coco_mini_val"
        "+INPUT.MIN_SIZE_TRAIN=(600,700)+SOLVER.BASE_LR=0.01"
    )


def test_of_more_departures_three_stand_and_a_hash_tells_the_rest_apart():
    options = (
        "SOLVER.BASE_LR",
        0.01,
        "SOLVER.GAMMA",
        0.5,
        "SOLVER.MOMENTUM",
        0.8,
        "SOLVER.WEIGHT_DECAY",
    )
    names = [
        protocol_id(load("detectron2/scenes_segm", *options, decay)) for decay in (0.002, 0.003)
    ]
    shown = "scenes-segm+SOLVER.BASE_LR=0.01+SOLVER.GAMMA=0.5+SOLVER.MOMENTUM=0.8+1-more-"
    assert all(name.startswith(shown) and len(name) == len(shown) + 8 for name in names)
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("config", "start"),
    [
        (
            "coco_mini_segm_smoke",
            "coco-segm-2x+DATASETS.TEST=coco_mini_val+DATASETS.TRAIN=coco_mini_train+",
        ),
        (
            "lvis_100_segm_smoke",
            "lvis-segm-2x+DATASETS.TEST=lvis_100_val+DATASETS.TRAIN=lvis_100_val+",
        ),
        (
            "voc_mini_det_smoke",
            "voc-det-24k+DATASETS.TEST=voc_mini_test+DATASETS.TRAIN=voc_mini_trainval+",
        ),
        ("coco_segm_default_init_2x_R_101", "coco-segm-2x+MODEL.RESNETS.DEPTH=101"),
    ],
)
def test_other_configs_depart_from_the_protocol_they_build_on(config, start):
    name = protocol_id(load(f"detectron2/{config}"))
    assert name.startswith(start)
    assert len(name) < 150 and " " not in name and "|" not in name


def test_the_nearest_protocol_comes_with_all_departures():
    found = nearest_protocol(load("detectron2/coco_segm_default_init_1x", "SOLVER.BASE_LR", 0.5))
    assert found.protocol == protocols()["coco-segm-1x"]
    assert found.departures == {"SOLVER.BASE_LR": 0.5}
    assert found.id == "coco-segm-1x+SOLVER.BASE_LR=0.5"


def test_pretraining_has_no_protocol():
    assert protocol_id(load("pretrain/scenes_bicaptioning")) == ""


def test_another_meta_architecture_on_boxes_is_a_departure():
    cfg = load("detectron2/coco_segm_default_init_2x", "MODEL.META_ARCHITECTURE", "ProposalNetwork")
    assert protocol_id(cfg) == "coco-segm-2x+MODEL.META_ARCHITECTURE=ProposalNetwork"


@pytest.mark.parametrize("fraction", [1.0, 0.1, 0.01])
def test_a_schedule_in_proportion_to_the_labels_has_a_mark_whatever_the_part(fraction):
    part = ("DATASETS.TRAIN_FRACTION", fraction, "SOLVER.REFERENCE_FRACTION", 1.0)
    assert (
        protocol_id(load("detectron2/voc_det_default_init_24k", *part))
        == "voc-det-24k+scaled-schedule"
    )


def test_a_schedule_scaled_by_another_rule_is_a_departure():
    part = ("DATASETS.TRAIN_FRACTION", 0.1, "SOLVER.REFERENCE_FRACTION", 0.2)
    assert "+SOLVER.MAX_ITER=12000+" in protocol_id(
        load("detectron2/voc_det_default_init_24k", *part)
    )


@pytest.fixture
def edited_repository(tmp_path, monkeypatch, request):
    """The configs of a repository in which one protocol's config was edited, or is missing."""
    import shutil

    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    path = tmp_path / "configs/detectron2/coco_segm_default_init_2x.yaml"
    request.param(path)
    monkeypatch.setattr("virtex_det.config.files.CONFIGS", tmp_path / "configs")
    caches = (protocol_module._protocol_settings, protocol_module._protocol_configs)
    for cached in caches:
        cached.cache_clear()
    yield path
    for cached in caches:
        cached.cache_clear()


def longer(path):
    path.write_text(path.read_text().replace("MAX_ITER: 180000", "MAX_ITER: 200000"))


@pytest.mark.parametrize("edited_repository", [longer], indirect=True)
def test_an_edited_config_stands_for_its_protocol_no_more(edited_repository, caplog):
    name = protocol_id(load_config(str(edited_repository), []))
    assert not name.startswith("coco-segm-2x+")
    assert "SOLVER.MAX_ITER=200000" in name
    assert "coco_segm_default_init_2x.yaml has been edited" in caplog.text


@pytest.mark.parametrize("edited_repository", [Path.unlink], indirect=True)
def test_a_missing_config_is_a_warning(edited_repository, caplog):
    assert protocol_id(load("detectron2/scenes_segm")) == "scenes-segm"
    assert "The protocol coco-segm-2x is not used: There is no config file" in caplog.text
    assert "The protocol coco-segm-1x is not used: " in caplog.text, "which builds on it"
