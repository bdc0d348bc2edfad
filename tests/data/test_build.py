import logging
import random
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.utils.env import seed_all_rng

from virtex_det import get_cfg
from virtex_det.data import MAPPER_REGISTRY, build_test_loader, build_train_loader, load_train_dicts
from virtex_det.data.build import check_train_loader, lending_images
from virtex_det.errors import UserError

BATCH = 4


@pytest.fixture
def dicts(example):
    """Ten images; of every fifth only the crowd is annotated."""
    return [
        {
            **example,
            "image_id": index,
            "annotations": example["annotations"][2 if index % 5 == 4 else 0 :],
        }
        for index in range(10)
    ]


@pytest.fixture
def cfg(dicts, register, tokenizer_file):
    cfg = get_cfg()
    cfg.merge_from_list(["SEED", 3, "MODEL.MASK_ON", True, "SOLVER.IMS_PER_BATCH", BATCH])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATALOADER.ASPECT_RATIO_GROUPING", False])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TRAIN", (20, 30), "INPUT.MIN_SIZE_TEST", 20])
    cfg.merge_from_list(
        ["INPUT.CAPTION.CROP_SIZE", 16, "INPUT.CAPTION.TOKENIZER", str(tokenizer_file)]
    )
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


def examples(cfg, start_iter=0, batches=4):
    """Image id, pixels and text or boxes of each example, by batch."""
    return [
        [(example["image_id"], example["image"], learned(example)) for example in batch]
        for batch in take(build_train_loader(cfg, start_iter), batches)
    ]


def learned(example):
    return (
        example["caption_tokens"]
        if "caption_tokens" in example
        else example["instances"].gt_boxes.tensor
    )


def assert_same(batches, others):
    assert [len(batch) for batch in batches] == [len(batch) for batch in others]
    for batch, other in zip(batches, others, strict=True):
        for (image_id, image, target), (other_id, other_image, other_target) in zip(
            batch, other, strict=True
        ):
            assert (
                image_id == other_id
                and torch.equal(image, other_image)
                and torch.equal(target, other_target)
            )


@pytest.fixture(params=["DetectionMapper", "CaptionMapper"])
def mapped_cfg(cfg, request):
    cfg.DATALOADER.MAPPER = request.param
    return cfg


def test_batches_are_the_same_whatever_the_number_of_workers(mapped_cfg):
    alone = examples(mapped_cfg)
    for workers in (1, 2):
        mapped_cfg.DATALOADER.NUM_WORKERS = workers
        assert_same(examples(mapped_cfg), alone)


def test_batches_do_not_depend_on_what_else_draws_random_numbers(mapped_cfg):
    seed_all_rng(1)
    first = examples(mapped_cfg)
    seed_all_rng(2)
    assert_same(examples(mapped_cfg), first)


def test_two_processes_together_give_the_batches_of_one(mapped_cfg, monkeypatch):
    alone = examples(mapped_cfg)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        mapped_cfg.DATALOADER.NUM_WORKERS = 2 * rank
        shares.append(examples(mapped_cfg))
    together = [
        [each for pair in zip(*batches, strict=True) for each in pair]
        for batches in zip(*shares, strict=True)
    ]
    assert_same(together, alone)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_continues_with_the_next_batch(mapped_cfg, workers):
    mapped_cfg.DATALOADER.NUM_WORKERS = workers
    assert_same(examples(mapped_cfg, start_iter=5, batches=3), examples(mapped_cfg, batches=8)[5:])


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_a_resumed_run_continues_in_the_order_of_its_sampler(cfg, sampler):
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    whole = ids(take(build_train_loader(cfg), 9))
    assert ids(take(build_train_loader(cfg, start_iter=6), 3)) == whole[6:]


def test_an_image_is_augmented_differently_each_time(cfg, dicts, register):
    cfg.merge_from_list(["DATALOADER.MAPPER", "CaptionMapper"])
    cfg.DATASETS.TRAIN = (register(dicts[:1], "one_image"),)
    ((_, first, _), (_, second, _), *_), *_ = examples(cfg)
    assert not torch.equal(first, second)


def test_another_seed_gives_other_images_and_pixels(mapped_cfg):
    first = examples(mapped_cfg)
    mapped_cfg.SEED = 4
    second = examples(mapped_cfg)
    assert [each[0] for batch in first for each in batch] != [
        each[0] for batch in second for each in batch
    ]
    assert not any(torch.equal(a[1], b[1]) for a in first[0] for b in second[0] if a[0] == b[0])


def test_without_a_seed_every_run_is_different(cfg):
    cfg.merge_from_list(["DATALOADER.MAPPER", "CaptionMapper", "SEED", -1])
    assert ids(take(build_train_loader(cfg), 5)) != ids(take(build_train_loader(cfg), 5))


def test_loading_does_not_change_the_random_numbers_of_training(mapped_cfg):
    loader = iter(build_train_loader(mapped_cfg))
    next(loader)  # starting a DataLoader draws one
    drawn = []
    for loads in (False, True):
        seed_all_rng(0)
        if loads:
            next(loader)
        drawn.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert drawn[0] == drawn[1]


def test_a_resumed_run_loads_none_of_the_images_it_skips(cfg, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "virtex_det.data.mappers.detection.read_image",
        lambda example, *_: loaded.append(1) or np.zeros((40, 60, 3), "uint8"),
    )
    take(build_train_loader(cfg, start_iter=50), 1)
    assert len(loaded) == BATCH


def test_aspect_ratio_grouping_gives_full_batches_of_one_orientation(
    cfg, dicts, register, tmp_path
):
    from PIL import Image

    Image.new("RGB", (40, 60)).save(tmp_path / "tall.png")
    for entry in dicts[::2]:
        entry.update(file_name=str(tmp_path / "tall.png"), height=60, width=40)
    cfg.DATASETS.TRAIN = (register(dicts, "tall_and_wide"),)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        for batch in take(build_train_loader(cfg), 4):
            assert (
                len(batch) == BATCH
                and len({example["width"] > example["height"] for example in batch}) == 1
            )


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("DATALOADER.ASPECT_RATIO_GROUPING", True),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    ],
)
def test_images_of_another_loader_give_the_same_batches_without_loading(cfg, monkeypatch, options):
    cfg.merge_from_list(list(options))
    loader = build_train_loader(cfg)
    expected = examples(cfg)
    with monkeypatch.context() as patch, lending_images(loader):
        patch.setattr("virtex_det.data.build.load_training_set", None)
        lent = examples(cfg)
    for batch, other in zip(lent, expected, strict=True):
        for one, two in zip(batch, other, strict=True):
            assert one[0] == two[0] and torch.equal(one[1], two[1]) and torch.equal(one[2], two[2])


def test_images_of_loaders_of_another_kind_are_not_used(cfg):
    with lending_images([1, 2]):
        assert take(build_train_loader(cfg), 1)


def test_caption_batches_have_as_many_images_as_asked_even_with_grouping_on(cfg):
    cfg.merge_from_list(
        ["DATALOADER.MAPPER", "CaptionMapper", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False]
    )
    ungrouped = ids(take(build_train_loader(cfg), 4))
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    assert ids(take(build_train_loader(cfg), 4)) == ungrouped


def test_images_without_objects_are_left_out_only_if_the_config_asks(cfg):
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
    assert [entry["image_id"] for entry in load_train_dicts(cfg)] == [
        index for index in half if index % 5 != 4
    ]
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, register(dicts, "second_set"))
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    assert [entry["image_id"] for entry in load_train_dicts(cfg)] == half * 2


def test_rare_classes_are_repeated_with_repeat_factors(cfg, dicts, register):
    for entry in dicts[1:]:
        entry["annotations"] = entry["annotations"][:1]
    cfg.DATASETS.TRAIN = (register(dicts, "one_rare"),)
    cfg.merge_from_list(
        ["DATALOADER.FILTER_EMPTY_ANNOTATIONS", False, "DATALOADER.REPEAT_THRESHOLD", 1.0]
    )
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    drawn = np.bincount(sum(ids(take(build_train_loader(cfg), 30)), []))
    assert drawn[0] > 2 * drawn[1:].max() / 1.5


def test_a_test_loader_goes_once_over_all_images_in_order(cfg):
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        loader = build_test_loader(cfg, cfg.DATASETS.TRAIN[0])
        assert len(loader) == 10 and ids(loader) == [[index] for index in range(10)]
    assert [
        len(batch) for batch in build_test_loader(cfg, cfg.DATASETS.TRAIN[0], batch_size=4)
    ] == [4, 4, 2]


def test_an_error_in_a_worker_has_the_message_of_the_main_process(cfg, dicts, register):
    dicts[0]["file_name"] = "absent.jpg"
    cfg.DATALOADER.NUM_WORKERS = 1
    name = register(dicts, "absent_image")
    with pytest.raises(UserError) as error:
        take(build_test_loader(cfg, name), 1)
    assert str(error.value).startswith("Image not found: absent.jpg") and "Traceback" not in str(
        error.value
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("DATASETS.TRAIN", (), "DATASETS.TRAIN is empty"),
        ("DATALOADER.MAPPER", "CaptainMapper", "CaptionMapper"),
        ("DATALOADER.SAMPLER_TRAIN", "Sampler", "TrainingSampler or Repeat"),
        ("SOLVER.IMS_PER_BATCH", 0, "IMS_PER_BATCH 0"),
        ("DATALOADER.NUM_WORKERS", -1, "NUM_WORKERS is -1"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_what_is_expected(cfg, key, value, message):
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_train_loader(cfg)


def test_no_image_left_is_an_error_that_says_why(cfg, dicts, register):
    cfg.DATASETS.TRAIN = (register(dicts[4:5], "only_crowd"),)
    with pytest.raises(UserError, match="all 1 annotations are crowds"):
        build_train_loader(cfg)


def test_images_without_captions_are_found_before_pretraining(cfg, dicts, register):
    cfg.MODEL.META_ARCHITECTURE = "BicaptioningModel"
    check_train_loader(cfg)
    boxes = [{key: value for key, value in dicts[0].items() if key != "captions"}]
    cfg.DATASETS.TRAIN = (register(boxes, "boxes_alone"),)
    with pytest.raises(UserError, match="No caption for image"):
        check_train_loader(cfg)


def test_a_detector_on_images_without_annotations_is_an_error(cfg, dicts, register):
    captions = [
        {key: value for key, value in entry.items() if key != "annotations"} for entry in dicts
    ]
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, register(captions, "captions_alone"))
    with pytest.raises(UserError, match="learns from boxes.*captions_alone"):
        build_train_loader(cfg)


def test_sets_of_different_classes_are_an_error(cfg, dicts, register):
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, register(dicts, "more_classes", classes=5))
    with pytest.raises(UserError, match="different classes"):
        build_train_loader(cfg)


def test_detectron2s_own_mapper_can_be_named(cfg):
    cfg.DATALOADER.MAPPER = "DatasetMapper"
    (batch,) = take(build_train_loader(cfg), 1)
    assert len(batch[0]["instances"]) and "DatasetMapper" in MAPPER_REGISTRY


@pytest.fixture
def caption_cfg(cfg, dicts, register):
    """The images as a set of captions, without objects."""
    captioned = [
        {key: value for key, value in entry.items() if key != "annotations"} for entry in dicts
    ]
    cfg.merge_from_list(["DATALOADER.MAPPER", "CaptionMapper"])
    cfg.DATASETS.TRAIN = (register(captioned, "captioned"),)
    return cfg


def test_a_number_of_captions_per_image_can_be_chosen(caption_cfg):
    assert {len(entry["captions"]) for entry in load_train_dicts(caption_cfg)} == {2}
    caption_cfg.DATASETS.CAPTIONS_PER_IMAGE = 1
    caption_cfg.DATASETS.TRAIN_FRACTION = 0.5
    assert [len(entry["captions"]) for entry in load_train_dicts(caption_cfg)] == [1] * 5


def test_captioned_images_without_a_file_are_left_out_up_to_a_fraction(
    caption_cfg, dicts, register
):
    dicts[3]["file_name"] = "/nowhere/absent.jpg"
    caption_cfg.DATASETS.TRAIN = (register(dicts, "one_absent"),)
    caption_cfg.merge_from_list(
        ["DATASETS.MAX_MISSING_FILES", 0.1, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False]
    )
    assert [entry["image_id"] for entry in load_train_dicts(caption_cfg)] == [
        0,
        1,
        2,
        4,
        5,
        6,
        7,
        8,
        9,
    ]
    caption_cfg.DATASETS.MAX_MISSING_FILES = 0.09
    with pytest.raises(UserError, match="MAX_MISSING_FILES"):
        load_train_dicts(caption_cfg)


@pytest.fixture
def broken_cfg(caption_cfg, dicts, register, tmp_path):
    """Image 3 of the captioned set is damaged."""
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    for entry in dicts:
        entry.pop("annotations")
    dicts[3] = {**dicts[3], "file_name": str(tmp_path / "broken.jpg")}
    caption_cfg.DATASETS.TRAIN = (register(dicts, "one_broken"),)
    return caption_cfg


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_replaced_by_the_next_of_its_set_and_reported(
    broken_cfg, workers, tmp_path
):
    broken_cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(broken_cfg)
    drawn = ids(take(loader, 5))
    broken_cfg.DATASETS.TRAIN = ("captioned",)
    whole = ids(take(build_train_loader(broken_cfg), 5))
    assert 3 in sum(whole, []) and drawn == [
        [4 if image == 3 else image for image in batch] for batch in whole
    ]
    assert loader.report() == {"image cannot be read": [str(tmp_path / "broken.jpg")]}


def test_training_batches_do_not_show_skipped_images(broken_cfg):
    assert all(
        "left_out" not in example
        for batch in take(build_train_loader(broken_cfg), 5)
        for example in batch
    )


@pytest.fixture
def broken_detection_cfg(broken_cfg, dicts, register):
    """Image 3 of a detector's training set is damaged."""
    broken_cfg.DATASETS.TRAIN = (
        register([{**entry, "annotations": []} for entry in dicts], "detection_broken"),
    )
    broken_cfg.merge_from_list(
        ["DATALOADER.MAPPER", "DetectionMapper", "DATALOADER.FILTER_EMPTY_ANNOTATIONS", False]
    )
    return broken_cfg


@pytest.mark.parametrize("mapper", ["DetectionMapper", "DatasetMapper"])
@pytest.mark.parametrize("workers", [0, 1])
def test_training_continues_without_a_broken_image_and_reports_it(
    broken_detection_cfg, mapper, workers, tmp_path
):
    broken_detection_cfg.merge_from_list(
        ["DATALOADER.MAPPER", mapper, "DATALOADER.NUM_WORKERS", workers]
    )
    loader = build_train_loader(broken_detection_cfg)
    drawn = sum(ids(take(loader, 5)), [])
    assert 4 in drawn and 3 not in drawn
    assert loader.report() == {"image cannot be read": [str(tmp_path / "broken.jpg")]}


@pytest.mark.parametrize("mapper", ["DetectionMapper", "DatasetMapper", "CaptionMapper"])
def test_an_evaluation_never_skips_an_image(broken_detection_cfg, mapper):
    broken_detection_cfg.merge_from_list(["DATALOADER.MAPPER", mapper])
    with pytest.raises(UserError, match=r"^Image cannot be read: .*broken\.jpg"):
        list(build_test_loader(broken_detection_cfg, "detection_broken"))


def test_a_folder_of_broken_images_ends_the_run(broken_cfg, dicts, register):
    broken_cfg.DATASETS.TRAIN = (
        register([{**dicts[3], "image_id": number} for number in range(3)], "all_broken"),
    )
    with pytest.raises(
        UserError, match=r"(?s)100 images in a row.*broken\.jpg.*cannot be read: .*Convert it"
    ):
        take(build_train_loader(broken_cfg), 1)


def test_fewer_captions_than_a_step_asks_for_are_said(cfg, dicts, caplog):
    for entry in dicts:  # registered by cfg
        entry["captions"] = ["a star", "a ring"]
    dicts[0]["captions"] = ["a star"]
    cfg.DATALOADER.MAPPER, cfg.INPUT.FORMAT = "CaptionMapper", "RGB"
    cfg.INPUT.CAPTION.PER_IMAGE = 2
    with caplog.at_level(logging.WARNING):
        (batch,) = take(build_train_loader(cfg), 1)
    assert "1 of 8 images have fewer captions than INPUT.CAPTION.PER_IMAGE, 2" in caplog.text
    assert {len(example.get("by_caption", [1])) for example in batch} <= {1, 2}
    cfg.INPUT.CAPTION.PER_IMAGE = 3
    with pytest.raises(UserError, match="asks for 3 captions .*no image of .* more than 2"):
        build_train_loader(cfg)
