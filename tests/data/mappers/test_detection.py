import copy
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetMapper
from detectron2.structures import BoxMode
from PIL import Image

from virtex_det import get_cfg
from virtex_det.data import MAPPER_REGISTRY, DetectionMapper
from virtex_det.errors import BrokenExample, UserError
from virtex_det.image_files import BrokenImage


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (30, 50, 70)
    cfg.INPUT.MIN_SIZE_TEST = 50
    return cfg


def with_run_length_masks(example):
    for annotation in example["annotations"]:
        annotation["segmentation"] = mask_util.merge(
            mask_util.frPyObjects(annotation["segmentation"], 40, 60)
        )
    return example


def map_with_seed(mapper, example, seed):
    np.random.seed(seed)
    return mapper(copy.deepcopy(example))


def masks_of(instances):
    masks = instances.gt_masks
    return (
        masks.tensor
        if hasattr(masks, "tensor")
        else torch.cat([torch.tensor(p) for m in masks for p in m])
    )


def assert_equal_examples(ours, theirs, pixel_tolerance=0):
    assert ours.keys() == theirs.keys()
    assert ours["image"].shape == theirs["image"].shape and ours["image"].dtype == torch.uint8
    assert (ours["image"].int() - theirs["image"].int()).abs().max() <= pixel_tolerance
    if "instances" not in theirs:
        return
    ours, theirs = ours["instances"], theirs["instances"]
    assert (
        ours.image_size == theirs.image_size
        and ours.get_fields().keys() == theirs.get_fields().keys()
    )
    assert torch.equal(ours.gt_boxes.tensor, theirs.gt_boxes.tensor)
    assert torch.equal(ours.gt_classes, theirs.gt_classes)
    if theirs.has("gt_masks"):
        assert torch.equal(masks_of(ours), masks_of(theirs))


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("INPUT.FORMAT", "RGB"),
        ("INPUT.RANDOM_FLIP", "vertical"),
        ("INPUT.MASK_FORMAT", "bitmask"),
        ("MODEL.MASK_ON", False),
        ("INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", [0.7, 0.7], "MODEL.MASK_ON", False),
        ("INPUT.MIN_SIZE_TRAIN", (0,)),
    ],
    ids=lambda options: " ".join(map(str, options)) or "default",
)
@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
def test_examples_are_those_of_detectron2_under_the_same_seed(cfg, example, options, fast):
    cfg.merge_from_list(["INPUT.FAST_RESIZE", fast, *options])
    ours, theirs = DetectionMapper(cfg, True), DatasetMapper(cfg, True)
    for seed in range(6):
        assert_equal_examples(
            map_with_seed(ours, example, seed),
            map_with_seed(theirs, example, seed),
            pixel_tolerance=2 * fast,
        )


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
def test_run_length_masks_come_out_as_detectron2_resizes_them(cfg, example, fast):
    cfg.merge_from_list(["INPUT.FAST_RESIZE", fast, "INPUT.MASK_FORMAT", "bitmask"])
    example = with_run_length_masks(example)
    for seed in range(4):
        ours = map_with_seed(DetectionMapper(cfg, True), example, seed)
        assert_equal_examples(
            ours, map_with_seed(DatasetMapper(cfg, True), example, seed), pixel_tolerance=2 * fast
        )


def test_cropped_masks_give_the_boxes_as_in_detectron2(cfg, example):
    cfg.merge_from_list(
        ["INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", [0.5, 0.5], "INPUT.MASK_FORMAT", "bitmask"]
    )
    example = with_run_length_masks(example)
    for seed in range(4):
        ours = map_with_seed(DetectionMapper(cfg, True), example, seed)
        assert_equal_examples(ours, map_with_seed(DatasetMapper(cfg, True), example, seed))


@pytest.mark.parametrize("mapper", [DetectionMapper, MAPPER_REGISTRY.get("DatasetMapper")])
@pytest.mark.parametrize("form", ["polygon", "bitmask"])
def test_cropping_polygons_without_shapely_is_an_error_that_says_what_to_install(
    cfg, example, mapper, form, monkeypatch
):
    monkeypatch.setitem(sys.modules, "shapely", None)
    cfg.merge_from_list(["INPUT.CROP.ENABLED", True, "INPUT.MASK_FORMAT", form])
    with pytest.raises(UserError, match="pip install shapely"):
        mapper(cfg, True)(example)


@pytest.mark.parametrize("mapper", [DetectionMapper, MAPPER_REGISTRY.get("DatasetMapper")])
def test_another_missing_package_is_not_taken_for_shapely(cfg, example, mapper, monkeypatch):
    def lacking(*_, **__):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")

    monkeypatch.setattr("detectron2.data.detection_utils.transform_instance_annotations", lacking)
    with pytest.raises(ModuleNotFoundError, match="mine"):
        mapper(cfg, True)(example)


def test_evaluation_examples_are_those_of_detectron2(cfg, example):
    ours = DetectionMapper(cfg, False)(example)
    assert_equal_examples(ours, DatasetMapper(cfg, False)(example))
    assert "annotations" not in ours and (ours["height"], ours["width"]) == (40, 60)


def test_the_fast_resize_is_another_kernel_than_the_default(cfg, example):
    cfg.INPUT.MIN_SIZE_TEST = 70
    exact = DetectionMapper(cfg, False)(example)["image"]
    cfg.INPUT.FAST_RESIZE = True
    assert not torch.equal(DetectionMapper(cfg, False)(example)["image"], exact)


@pytest.mark.parametrize("mapper", [DetectionMapper, MAPPER_REGISTRY.get("DatasetMapper")])
@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (3, 9000), (1, 1)])
def test_of_the_longest_and_thinnest_image_a_pixel_stays(cfg, tmp_path, size, fast, mapper):
    cfg.INPUT.FAST_RESIZE = fast
    path = tmp_path / "thin.png"
    Image.fromarray(np.full((*size, 3), 7, np.uint8)).save(path)
    box = {"bbox": [0, 0, *size[::-1]], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    polygon = [0, 0, size[1], 0, size[1], size[0], 0, size[0]]
    example = {
        "file_name": str(path),
        "image_id": 1,
        "annotations": [{**box, "segmentation": [polygon]}],
    }
    for is_train in (True, False):
        image = mapper(cfg, is_train)(example)["image"]
        assert min(image.shape[1:]) >= 1 and max(image.shape) <= 1333 and (image == 7).all()


def test_an_image_without_objects_gives_empty_instances(cfg, example):
    assert len(DetectionMapper(cfg, True)({**example, "annotations": []})["instances"]) == 0


def test_the_dataset_dict_stays_as_it_was_even_where_polygons_are_arrays(cfg, example):
    for annotation in example["annotations"]:
        annotation["segmentation"] = [
            np.array(polygon, dtype=float) for polygon in annotation["segmentation"]
        ]
    before = copy.deepcopy(example)
    DetectionMapper(cfg, True)(example)
    for annotation, expected in zip(
        example.pop("annotations"), before.pop("annotations"), strict=True
    ):
        assert np.array_equal(annotation.pop("segmentation"), expected.pop("segmentation"))
        assert annotation == expected
    assert example == before


def test_run_length_masks_in_polygon_format_are_an_error_that_names_file_and_key(cfg, example):
    with pytest.raises(UserError, match=r"(?s)photo\.jpg.*INPUT\.MASK_FORMAT bitmask"):
        DetectionMapper(cfg, True)(with_run_length_masks(example))


@pytest.mark.parametrize("key", ["MODEL.KEYPOINT_ON", "MODEL.LOAD_PROPOSALS"])
def test_what_the_mapper_leaves_out_is_an_error_that_names_the_other_mapper(cfg, key):
    cfg.merge_from_list([key, True])
    with pytest.raises(UserError, match=r"DATALOADER\.MAPPER DatasetMapper"):
        DetectionMapper(cfg, True)


def test_an_object_without_a_mask_is_an_error_when_masks_are_asked_for(cfg, example):
    del example["annotations"][0]["segmentation"]
    with pytest.raises(UserError, match="no segmentation .*MODEL.MASK_ON False"):
        DetectionMapper(cfg, is_train=True)(example)
    cfg.MODEL.MASK_ON = False
    assert len(DetectionMapper(cfg, is_train=True)(example)["instances"]) == 2


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"segmentation": [5.5, 4.25, 20.5, 4.25, 20.5, 15.75]},
            r"object 1: .*flat list of 6 numbers; .*\[\[x, y",
        ),
        ({"segmentation": [[5.5, 4.25, 20.5, 4.25]]}, "object 1: .*polygon of 4 numbers"),
        (
            {"segmentation": [[5.5, 4.25, 20.5, 4.25, 20.5, 15.75, 3]]},
            "object 1: .*polygon of 7 numbers",
        ),
        ({"segmentation": [["5", "4", "20", "4", "20", "15"]]}, "object 1: .*expected numbers"),
        ({"segmentation": [None]}, "object 1: .*polygon None"),
        ({"segmentation": "text"}, "object 1: .*'text'"),
        ({"segmentation": {"points": 3}}, 'object 1: .*no "counts"'),
        (
            {"segmentation": {"size": [20, 60], "counts": "PPYo0"}},
            r"object 1: .*size \[20, 60\], the image \[40, 60\]",
        ),
        ({"bbox": ["30", "10", "21", "23"]}, r"object 1: \"bbox\" is \['30'.*four numbers"),
        ({"bbox": [30, 10, 21]}, 'object 1: "bbox" is .*four numbers'),
        ({"bbox": None}, 'object 1: "bbox" is None'),
        ({"category_id": None}, "TypeError: "),
    ],
)
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_an_annotation_that_cannot_be_used_is_named_with_what_is_wrong(
    cfg, example, change, message, mask_format
):
    example["annotations"][1].update(change)
    cfg.INPUT.MASK_FORMAT = mask_format
    with pytest.raises(
        BrokenExample, match=rf"photo\.jpg (are invalid|cannot be used): {message}"
    ) as error:
        DetectionMapper(cfg, True)(example)
    assert error.value.reason == "invalid annotations" and "encoded" not in str(error.value)


def test_masks_of_another_form_than_the_config_asks_for_end_the_run_at_once(cfg, example):
    for wrong in (with_run_length_masks(copy.deepcopy(example)), copy.deepcopy(example)):
        if isinstance(wrong["annotations"][0]["segmentation"], list):
            del wrong["annotations"][0]["segmentation"]
        with pytest.raises(
            UserError, match="INPUT.MASK_FORMAT bitmask|MODEL.MASK_ON False"
        ) as error:
            DetectionMapper(cfg, True)(wrong)
        assert not isinstance(error.value, BrokenExample)


@pytest.mark.parametrize("mask", [[[]], [], None, "text", [1, 2]])
def test_without_masks_a_box_stays_whatever_its_segmentation(cfg, example, mask):
    cfg.MODEL.MASK_ON = False
    example["annotations"][0]["segmentation"] = mask
    assert len(DetectionMapper(cfg, True)(example)["instances"]) == 2


def test_detectron2s_mapper_gets_no_images_that_it_would_read_otherwise(cfg, example, tmp_path):
    Image.fromarray(np.full((40, 60), 60000, np.uint16)).save(tmp_path / "deep.png")
    mapper = MAPPER_REGISTRY.get("DatasetMapper")(cfg, True)
    assert_equal_examples(
        map_with_seed(mapper, example, 0), map_with_seed(DatasetMapper(cfg, True), example, 0)
    )
    for key in ("file_name", "sem_seg_file_name"):
        for name, message in (
            (str(tmp_path / "deep.png"), "more than 8 bits"),
            ("http://127.0.0.1:9/a.jpg", "address"),
        ):
            with pytest.raises(BrokenImage, match=message):
                mapper({**example, key: name})


def test_a_picture_that_becomes_one_pixel_wide_is_mirrored_too(cfg, tmp_path):
    Image.new("RGB", (2, 400)).save(tmp_path / "narrow.png")
    mask = mask_util.encode(np.asfortranarray(np.ones((400, 2), np.uint8)))
    found = {"bbox": [0, 0, 2, 400], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    narrow = {"file_name": str(tmp_path / "narrow.png"), "height": 400, "width": 2, "image_id": 1}
    narrow["annotations"] = [{**found, "segmentation": mask}]
    cfg.merge_from_list(["INPUT.MASK_FORMAT", "bitmask", "INPUT.MAX_SIZE_TRAIN", 100])
    mapper = DetectionMapper(cfg, True)
    for seed in range(8):  # some of them mirror it
        instances = map_with_seed(mapper, narrow, seed)["instances"]
        assert instances.gt_masks.tensor.shape == (1, 100, 1) and instances.gt_masks.tensor.all()
