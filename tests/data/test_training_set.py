import json
import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

from tests.processes import launch_processes
from virtex_det import get_cfg
from virtex_det.data import build_train_loader
from virtex_det.data.datasets import load_dataset, manifest_sha256
from virtex_det.data.training_set import (
    choose_images,
    describe_part,
    load_train_dicts,
    training_part,
)
from virtex_det.errors import UserError

IMAGES = 40


@pytest.fixture
def dicts(example):
    """Every image has category 0, every fourth 1, and one 2; of every fifth only a crowd is
    annotated.
    """
    first, second, crowd = example["annotations"]
    other = {**first, "category_id": 1}
    return [
        {
            **example,
            "image_id": k,
            "annotations": [crowd]
            if k % 5 == 4
            else [first, *[other] * (k % 4 == 0), *[second] * (k == 7), crowd],
        }
        for k in range(IMAGES)
    ]


@pytest.fixture
def cfg(dicts, register, tmp_path):
    cfg = get_cfg()
    cfg.merge_from_list(["SEED", 3, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0])
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.DATASETS.TRAIN = (register(dicts, "training_set"),)
    return cfg


def ids(dicts):
    return sorted(entry["image_id"] for entry in dicts)


def test_the_part_for_the_record_tells_images_manifest_and_empty_categories(cfg):
    cfg.DATASETS.TRAIN_FRACTION = 0.25
    (chosen,) = choose_images(cfg).values()
    part = training_part(cfg)
    assert (
        part.images
        == len(load_train_dicts(cfg))
        == sum(image % 5 != 4 for image in ids(chosen))
        < len(chosen)
        == 10
    )
    assert part.manifest_sha256 == manifest_sha256(ids(chosen))
    assert part.empty_categories == (() if 7 in ids(chosen) else ("class 2",))


def test_the_part_of_the_whole_set_is_told_too(cfg):
    assert training_part(cfg) == (32, manifest_sha256(range(IMAGES)), ())


def test_several_sets_are_one_part(cfg, dicts, register):
    alone = training_part(cfg)
    cfg.DATASETS.TRAIN = (*cfg.DATASETS.TRAIN, register(dicts[:10], "second_training_set"))
    both = training_part(cfg)
    assert both == (32 + 8, manifest_sha256(range(IMAGES), range(10)), ()) and both != alone


def test_a_part_without_some_categories_is_said_in_the_log_once(cfg, caplog, dicts, register):
    cfg.DATASETS.TRAIN = (register(dicts, "mostly_empty", classes=14),)
    cfg.DATASETS.TRAIN_FRACTION = 0.999
    with caplog.at_level(logging.WARNING):
        part = training_part(cfg)
        load_train_dicts(cfg)
    (message,) = [
        record.getMessage() for record in caplog.records if "no instance" in record.getMessage()
    ]
    assert message.startswith("11 categories have no instance in the 32 training images")
    assert message.endswith(f"{', '.join(f'class {number}' for number in range(3, 13))} and 1 more")
    assert part.empty_categories == tuple(f"class {number}" for number in range(3, 14))


def test_what_was_loaded_to_train_on_is_not_loaded_again_for_the_record(cfg, monkeypatch):
    build_train_loader(cfg)
    monkeypatch.setattr("virtex_det.data.training_set.load_dataset", None)
    assert training_part(cfg).images == 32


def test_a_name_that_is_registered_anew_is_another_part(cfg, dicts, register):
    first = training_part(cfg)
    DatasetCatalog.remove("training_set")
    DatasetCatalog.register("training_set", lambda: dicts[:10])
    assert training_part(cfg) == (8, manifest_sha256(range(10)), ()) != first


def test_a_run_on_a_part_leaves_its_manifest_in_the_run_folder(cfg, tmp_path):
    build_train_loader(cfg)
    assert not (tmp_path / "run").exists()
    cfg.DATASETS.TRAIN_FRACTION = 0.25
    build_train_loader(cfg)
    written = (tmp_path / "run" / "subset.json").read_text()
    content = json.loads(written)
    assert content["fraction"] == 0.25 and content["sha256"] == training_part(cfg).manifest_sha256
    assert content["ids"] == {"training_set": ids(choose_images(cfg)["training_set"])}
    build_train_loader(cfg, start_iter=3)
    assert (tmp_path / "run" / "subset.json").read_text() == written
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["subset.json"]


def test_a_manifest_gives_another_run_the_same_images(cfg, tmp_path):
    cfg.merge_from_list(["DATASETS.TRAIN_FRACTION", 0.25, "DATASETS.SUBSET_STRATIFIED", True])
    build_train_loader(cfg)
    part = training_part(cfg)
    cfg.DATASETS.SUBSET_FILE = str(tmp_path / "run" / "subset.json")
    cfg.OUTPUT_DIR = str(tmp_path / "again")
    build_train_loader(cfg)
    assert training_part(cfg) == part
    assert (tmp_path / "again" / "subset.json").read_text() == (
        tmp_path / "run" / "subset.json"
    ).read_text()


def test_a_split_file_of_the_whole_set_leaves_a_manifest_too(cfg, tmp_path):
    (tmp_path / "ids.txt").write_text("\n".join(map(str, range(IMAGES))))
    cfg.DATASETS.SUBSET_FILE = str(tmp_path / "ids.txt")
    build_train_loader(cfg)
    assert (tmp_path / "run" / "subset.json").exists()


def test_a_stratified_part_is_another_and_has_the_rare_category_in_proportion(cfg):
    cfg.DATASETS.TRAIN_FRACTION = 0.5
    plain = choose_images(cfg)
    cfg.DATASETS.SUBSET_STRATIFIED = True
    (stratified,) = choose_images(cfg).values()
    assert ids(stratified) != ids(plain["training_set"])
    seconds = sum(
        any(each["category_id"] == 1 and not each["iscrowd"] for each in e["annotations"])
        for e in stratified
    )
    assert abs(seconds - 4) <= 1


def test_only_the_main_process_writes_the_manifest(cfg, tmp_path, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: 1)
    cfg.DATASETS.TRAIN_FRACTION = 0.25
    build_train_loader(cfg)
    assert not (tmp_path / "run").exists()


def test_labels_are_categories(cfg, dicts, register):
    labelled = [
        {"file_name": e["file_name"], "image_id": e["image_id"], "label": e["image_id"] % 3}
        for e in dicts
    ]
    cfg.DATASETS.TRAIN = (register(labelled, "labelled"),)
    MetadataCatalog.get("labelled").classes = ["cat", "dog", "fox", "gnu"]
    assert training_part(cfg) == (IMAGES, manifest_sha256(range(IMAGES)), ("gnu",))
    cfg.merge_from_list(["DATASETS.TRAIN_FRACTION", 0.25, "DATASETS.SUBSET_STRATIFIED", True])
    text = describe_part(choose_images(cfg))
    assert "labelled: 10 images\n10 instances of 3 categories" in text and text.endswith(
        "without an instance: gnu"
    )


def test_captions_have_a_part_without_categories_and_no_strata(cfg, scenes):
    cfg.DATASETS.TRAIN = ("scenes_train_captions", "scenes_unlabelled_captions")
    cfg.DATASETS.TRAIN_FRACTION = 0.5
    part, chosen = training_part(cfg), choose_images(cfg)
    assert part == (12, manifest_sha256(*map(ids, chosen.values())), ())
    assert describe_part(chosen) == (
        "scenes_train_captions: 6 images\nscenes_unlabelled_captions: 6 images"
    )
    cfg.DATASETS.SUBSET_STRATIFIED = True
    with pytest.raises(UserError, match="captions are not categories"):
        training_part(cfg)


def test_the_part_of_shards_is_the_rule_by_which_they_are_read(cfg, tmp_path, write_shard):
    write_shard(tmp_path / "0.tar", 3)
    cfg.DATASETS.TRAIN = (f"shards:{tmp_path}/*.tar",)
    parts = []
    for fraction, seed in ((1.0, 0), (0.5, 0), (0.5, 1)):
        cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.SUBSET_SEED = fraction, seed
        parts.append(training_part(cfg))
    assert {(part.images, part.empty_categories) for part in parts} == {(0, ())}
    assert len({part.manifest_sha256 for part in parts}) == 3


@pytest.mark.parametrize(
    "key", [("DATASETS.SUBSET_FILE", "ids.txt"), ("DATASETS.SUBSET_STRATIFIED", True)]
)
def test_shards_take_neither_a_split_file_nor_strata(cfg, tmp_path, write_shard, key):
    write_shard(tmp_path / "0.tar", 3)
    cfg.merge_from_list(["DATASETS.TRAIN", (f"shards:{tmp_path}/*.tar",), *key])
    for use in (training_part, build_train_loader):
        with pytest.raises(UserError, match="need a list"):
            use(cfg)


def test_a_set_without_any_file_is_not_blamed_on_its_fraction(cfg, dicts, register):
    gone = [{**entry, "file_name": f"/gone/{entry['image_id']}.jpg"} for entry in dicts]
    cfg.DATASETS.TRAIN, cfg.DATASETS.MAX_MISSING_FILES = (register(gone, "gone_set"),), 1.0
    with pytest.raises(UserError, match="every image lacks its file(?s:.*)Complete") as caught:
        load_train_dicts(cfg)
    assert "fraction" not in str(caught.value).lower()


def test_data_that_are_not_here_are_an_error(cfg):
    cfg.DATASETS.TRAIN = ("coco_2017_train",)
    with pytest.raises(UserError, match="coco_2017_train is missing"):
        training_part(cfg)


def write_parts(cfgs, folder):
    """Write what this process trains on with each config."""
    found = [
        [
            training_part(cfg),
            [(entry["image_id"], entry.get("captions")) for entry in load_train_dicts(cfg)],
        ]
        for cfg in cfgs
    ]
    (folder / f"{comm.get_rank()}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_two_processes_take_the_same_images_and_captions(detector_cfg, pretraining_cfg, tmp_path):
    half = ("DATASETS.TRAIN_FRACTION", 0.5)
    cfgs = [
        detector_cfg(*half),
        detector_cfg(*half, "DATASETS.SUBSET_STRATIFIED", True),
        pretraining_cfg(*half, "DATASETS.CAPTIONS_PER_IMAGE", 2, "INPUT.CAPTION.PER_IMAGE", 2),
    ]
    launch_processes(write_parts, cfgs, tmp_path, processes=2)
    first, second = ((tmp_path / f"{rank}.json").read_text() for rank in (0, 1))
    assert first == second
    for cfg, (part, images) in zip(cfgs, json.loads(first), strict=True):
        assert part[1] == training_part(cfg).manifest_sha256
        assert 0 < len(images) < sum(len(load_dataset(name)) for name in cfg.DATASETS.TRAIN)
