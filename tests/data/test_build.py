from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.utils.env import seed_all_rng

from virtex_det import get_cfg
from virtex_det.data import MAPPER_REGISTRY, build_test_loader, build_train_loader, load_train_dicts
from virtex_det.errors import UserError

BATCH = 4


@pytest.fixture
def dicts(example):
    """Ten images; of every fifth only the crowd is annotated."""
    return [
        {**example, "image_id": index, "annotations": example["annotations"][2 if index % 5 == 4 else 0 :]}
        for index in range(10)
    ]


@pytest.fixture
def cfg(dicts, register, tokenizer_file):
    cfg = get_cfg()
    cfg.merge_from_list(["SEED", 3, "MODEL.MASK_ON", True, "SOLVER.IMS_PER_BATCH", BATCH])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATALOADER.ASPECT_RATIO_GROUPING", False])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (20, 30), "INPUT.MIN_SIZE_TEST", 20])
    cfg.merge_from_list(["INPUT.CAPTION.CROP_SIZE", 16, "INPUT.CAPTION.TOKENIZER", str(tokenizer_file)])
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 60
    cfg.DATASETS.TRAIN = (register(dicts),)
    return cfg


def take(loader, batches):
    return list(islice(loader, batches))


def ids(batches):
    return [[example["image_id"] for example in batch] for batch in batches]


def test_a_batch_is_a_list_of_examples(cfg):
    (batch,) = take(build_train_loader(cfg), 1)
    assert len(batch) == BATCH and {"image", "instances"} <= batch[0].keys()


def test_a_seed_fixes_the_order_whatever_the_number_of_workers(cfg):
    alone = ids(take(build_train_loader(cfg), 5))
    cfg.DATALOADER.NUM_WORKERS = 2
    assert ids(take(build_train_loader(cfg), 5)) == alone
    cfg.SEED = 4
    assert ids(take(build_train_loader(cfg), 5)) != alone


@pytest.mark.parametrize("mapper", ["DetectionMapper", "CaptionMapper"])
def test_a_seed_fixes_the_pixels_that_workers_make(cfg, mapper):
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 2, "DATALOADER.MAPPER", mapper])
    runs = []
    for unrelated_state in (1, 2):
        seed_all_rng(unrelated_state)
        runs.append([example for batch in take(build_train_loader(cfg), 3) for example in batch])
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first["image"], second["image"])


def test_workers_augment_differently(cfg):
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 2, "DATALOADER.MAPPER", "CaptionMapper"])
    first, second = take(build_train_loader(cfg), 2)
    assert not any(torch.equal(a["image"], b["image"]) for a in first for b in second)


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_a_resumed_run_goes_on_with_the_batch_it_stopped_before(cfg, sampler):
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    whole = ids(take(build_train_loader(cfg), 9))
    assert ids(take(build_train_loader(cfg, start_iter=6), 3)) == whole[6:]


def test_a_resumed_run_loads_none_of_the_images_it_skips(cfg, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "virtex_det.data.detection_mapper.read_image",
        lambda example, _: loaded.append(1) or np.zeros((40, 60, 3), "uint8"),
    )
    take(build_train_loader(cfg, start_iter=50), 1)
    assert len(loaded) == BATCH


def test_a_resumed_run_augments_anew(cfg):
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 1, "DATALOADER.MAPPER", "CaptionMapper"])
    (start,), (resumed,) = take(build_train_loader(cfg), 1), take(build_train_loader(cfg, start_iter=5), 1)
    assert not any(torch.equal(a["image"], b["image"]) for a in start for b in resumed)


def test_aspect_ratio_grouping_gives_full_batches_of_one_orientation(cfg, dicts, register, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 60)).save(tmp_path / "tall.png")
    for entry in dicts[::2]:
        entry.update(file_name=str(tmp_path / "tall.png"), height=60, width=40)
    cfg.DATASETS.TRAIN = (register(dicts, "tall_and_wide"),)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        for batch in take(build_train_loader(cfg), 4):
            assert len(batch) == BATCH and len({example["width"] > example["height"] for example in batch}) == 1


def test_caption_batches_have_as_many_images_as_asked_even_with_grouping_on(cfg):
    cfg.merge_from_list(["DATALOADER.MAPPER", "CaptionMapper", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False])
    ungrouped = ids(take(build_train_loader(cfg), 4))
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    assert ids(take(build_train_loader(cfg), 4)) == ungrouped


def test_images_with_nothing_to_detect_are_left_out_only_when_asked(cfg):
    assert [entry["image_id"] for entry in load_train_dicts(cfg)] == [0, 1, 2, 3, 5, 6, 7, 8]
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert len(load_train_dicts(cfg)) == 10


def test_caption_sets_are_not_filtered(cfg, dicts, register):
    for entry in dicts:
        del entry["annotations"]
    cfg.DATASETS.TRAIN = (register(dicts, "only_captions"),)
    assert len(load_train_dicts(cfg)) == 10


def test_the_fraction_is_taken_of_each_set_before_empty_images_are_left_out(cfg, dicts, register):
    cfg.DATASETS.TRAIN_FRACTION = 0.5
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    half = [entry["image_id"] for entry in load_train_dicts(cfg)]
    assert len(half) == 5
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = True
    assert [entry["image_id"] for entry in load_train_dicts(cfg)] == [index for index in half if index % 5 != 4]
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, register(dicts, "second_set"))
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert [entry["image_id"] for entry in load_train_dicts(cfg)] == half * 2


def test_rare_classes_come_more_often_under_repeat_factors(cfg, dicts, register):
    for entry in dicts[1:]:
        entry["annotations"] = entry["annotations"][:1]
    cfg.DATASETS.TRAIN = (register(dicts, "one_rare"),)
    cfg.merge_from_list(["DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "DATALOADER.REPEAT_THRESHOLD", 1.0])
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    drawn = np.bincount(sum(ids(take(build_train_loader(cfg), 30)), []))
    assert drawn[0] > 2 * drawn[1:].max() / 1.5


def test_a_test_loader_goes_once_over_all_images_in_order(cfg):
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        loader = build_test_loader(cfg, cfg.DATASETS.TRAIN[0])
        assert len(loader) == 10 and ids(loader) == [[index] for index in range(10)]
    assert [len(batch) for batch in build_test_loader(cfg, cfg.DATASETS.TRAIN[0], batch_size=4)] == [4, 4, 2]


def test_an_error_in_a_worker_reads_as_in_the_main_process(cfg, dicts, register):
    dicts[0]["file_name"] = "absent.jpg"
    cfg.DATALOADER.NUM_WORKERS = 1
    name = register(dicts, "absent_image")
    with pytest.raises(UserError) as error:
        take(build_test_loader(cfg, name), 1)
    assert str(error.value).startswith("Image not found: absent.jpg") and "Traceback" not in str(error.value)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("DATASETS.TRAIN", (), "DATASETS.TRAIN is empty"),
        ("DATALOADER.MAPPER", "CaptainMapper", "CaptionMapper"),
        ("DATALOADER.SAMPLER_TRAIN", "Sampler", "TrainingSampler or Repeat"),
        ("SOLVER.IMS_PER_BATCH", 0, "IMS_PER_BATCH 0"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_what_is_expected(cfg, key, value, message):
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_train_loader(cfg)


def test_no_image_left_is_an_error_that_says_what_to_change(cfg, dicts, register):
    cfg.DATASETS.TRAIN = (register(dicts[4:5], "only_crowd"),)
    with pytest.raises(UserError, match="FILTER_EMPTY_ANNOTATIONS"):
        build_train_loader(cfg)


def test_sets_of_different_classes_are_an_error(cfg, dicts, register):
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, register(dicts, "more_classes", classes=5))
    with pytest.raises(UserError, match="different classes"):
        build_train_loader(cfg)


def test_detectron2s_own_mapper_can_be_named(cfg):
    cfg.DATALOADER.MAPPER = "DatasetMapper"
    (batch,) = take(build_train_loader(cfg), 1)
    assert len(batch[0]["instances"]) and "DatasetMapper" in MAPPER_REGISTRY
