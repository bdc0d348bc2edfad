"""Annotations and images that are named by an address are refused before anything is fetched."""

import copy
import socket

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_lvis_instances

from virtex_det.engine.preflight import check_evaluation, check_training
from virtex_det.errors import UserError

NAME = "v1_addresses"  # whose classes Detectron2's reader of LVIS knows


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    if NAME in DatasetCatalog.list():
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.mark.parametrize(
    "address", ["http://localhost:9/1.png", "ftp://localhost/1.png", "HTTPS://a/1.png", "s3://a/1"]
)
def test_an_image_that_is_named_by_an_address_is_refused_by_name(address, parts, parts_cfg):
    def spoil(content: dict) -> None:
        content["images"][1]["file_name"] = address

    message = rf"the file_name of 1 of 4 images is an address, e.g. .*{address}\n.*never fetched"
    cfg = parts_cfg(spoil=spoil)
    for check in (check_training, check_evaluation):
        with pytest.raises(UserError, match=message):
            check(cfg)
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = cfg.DATASETS.TEST, ()
    with pytest.raises(UserError, match=message):
        check_training(cfg)


def test_an_address_among_the_dicts_of_a_function_is_refused_by_name(parts, parts_cfg):
    dicts = DatasetCatalog.get(parts("of_a_function"))
    dicts[2]["file_name"] = "http://localhost:9/1.png"
    DatasetCatalog.register(NAME, lambda: copy.deepcopy(dicts))
    MetadataCatalog.get(NAME).set(thing_classes=["bolt", "nut"], evaluator_type="coco")
    cfg = parts_cfg()
    cfg.defrost()
    for names in (((NAME,), ()), (cfg.DATASETS.TRAIN, (NAME,))):
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = names
        with pytest.raises(
            UserError,
            match="file_name of 1 of 4 images is an address, e.g. http://localhost:9/1.png",
        ):
            check_training(cfg)


@pytest.mark.parametrize("register", [register_coco_instances, register_lvis_instances])
@pytest.mark.parametrize(
    ("json_file", "image_root", "message"),
    [
        (
            "http://localhost:9/a.json",
            ".",
            "its json_file is the address http://localhost:9/a.json",
        ),
        ("FTP://localhost/a.json", ".", "its json_file is the address FTP://localhost/a.json"),
        (
            "{file}",
            "https://localhost/images/",
            "its image_root is the address https://localhost/images/",
        ),
    ],
)
def test_annotations_and_folders_that_are_addresses_are_refused(
    register, json_file, image_root, message, parts, parts_cfg
):
    cfg = parts_cfg()
    file = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).json_file
    register(NAME, {}, json_file.format(file=file), image_root)
    cfg.defrost()
    cfg.DATASETS.TEST = (NAME,)
    for check in (check_training, check_evaluation):
        with pytest.raises(UserError, match=f"data set {NAME}: {message}"):
            check(cfg)


def test_lvis_data_with_classes_of_their_own_are_told_how_to_register(parts, parts_cfg):
    def spoil(content: dict) -> None:
        for image in content["images"]:
            image.update(
                coco_url="http://a/train2017/1.png",
                neg_category_ids=[],
                not_exhaustive_category_ids=[],
            )

    cfg = parts_cfg(spoil=spoil)
    file = MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file
    register_lvis_instances("own_addresses", {}, file, "")
    cfg.defrost()
    cfg.DATASETS.TEST = ("own_addresses",)
    try:
        with pytest.raises(
            UserError,
            match="was registered as LVIS data.*\n.*register_coco_instances",
        ):
            check_training(cfg)
    finally:
        DatasetCatalog.remove("own_addresses")
        MetadataCatalog.remove("own_addresses")
