"""What was found in a picture: parts of it, its masks, its other forms."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as mask_tools

from virtex_det.errors import UserError
from virtex_det.inference import ImageDetections

HEIGHT, WIDTH = 20, 30
BOXES = [[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 25.0, 15.0], [20.5, 1.25, 30.0, 19.75]]


def masks():
    drawn = np.zeros((3, HEIGHT, WIDTH), bool)
    drawn[0, 0:10, 0:10] = drawn[1, 5:15, 5:25] = drawn[2, 1:20, 20:30] = True
    return drawn


@pytest.fixture
def detections():
    instances = Instances(
        (HEIGHT, WIDTH),
        pred_boxes=Boxes(torch.tensor(BOXES)),
        scores=torch.tensor([0.9, 0.6, 0.3]),
        pred_classes=torch.tensor([1, 0, 1]),
        depth=torch.tensor([1.0, 2.0, 3.0]),
    )
    rles = [mask_tools.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks()]
    return ImageDetections(instances, ("dog", "cat"), rles, "photo.jpg")


def test_columns_have_their_shapes_and_types(detections):
    assert detections.boxes.dtype == np.float32 and detections.boxes.tolist() == BOXES
    assert detections.scores.dtype == np.float32 and detections.classes.tolist() == [1, 0, 1]
    assert detections.names == ("cat", "dog", "cat") and detections.image_size == (HEIGHT, WIDTH)
    assert detections.masks.dtype == bool and np.array_equal(detections.masks, masks())


@pytest.mark.parametrize(
    ("index", "places"),
    [
        (0, [0]),
        (-1, [2]),
        (slice(1, None), [1, 2]),
        ([2, 0], [2, 0]),
        (np.array([False, True, False]), [1]),
        (np.zeros(3, bool), []),
    ],
)
def test_an_index_takes_some_with_their_masks(detections, index, places):
    part = detections[index]
    assert part.boxes.tolist() == [BOXES[place] for place in places] and len(part) == len(places)
    assert np.array_equal(part.masks, masks()[places]) and part.masks.shape == (
        len(places),
        HEIGHT,
        WIDTH,
    )
    assert part.file_name == "photo.jpg" and part.class_names == ("dog", "cat")
    assert len(detections) == 3


def test_an_index_beyond_the_end_is_an_error(detections):
    with pytest.raises(IndexError):
        detections[3]


def test_instances_have_masks_and_whatever_else_was_found(detections):
    instances = detections.instances
    assert torch.equal(
        instances.pred_masks, torch.from_numpy(masks())
    ) and instances.depth.tolist() == [1, 2, 3]
    assert instances.pred_boxes.tensor.tolist() == BOXES and instances.image_size == (HEIGHT, WIDTH)
    assert not detections[[]].instances.pred_masks.numel()


def test_boxes_alone_have_no_masks(detections):
    alone = ImageDetections(detections.instances, ("dog", "cat"))
    assert alone.masks is None and alone[0].masks is None
    assert "segmentation" not in alone.to_coco(1, [1, 2])[0]


def test_unknown_names_are_numbers(detections):
    assert ImageDetections(detections.instances).names == ("1", "0", "1")


@pytest.mark.parametrize("ids", [{"dog": 18, "cat": 17}, [18, 17], (18, 17), np.array([18, 17])])
def test_coco_entries_have_the_ids_of_the_annotation_file(detections, ids):
    first, *_, last = detections.to_coco("a", ids)
    assert (
        first["category_id"] == 17 and first["image_id"] == "a" and first["bbox"] == [0, 0, 10, 10]
    )
    assert last["bbox"] == [20.5, 1.25, 9.5, 18.5] and last["score"] == pytest.approx(0.3)
    assert mask_tools.decode(first["segmentation"]).sum() == 100


@pytest.mark.parametrize("ids", [{"dog": 18}, [18]])
def test_a_class_without_an_id_is_named(detections, ids):
    with pytest.raises(UserError, match="no category id for the class"):
        detections.to_coco(1, ids)


@pytest.mark.parametrize("image_id", [float("nan"), 1.5, -1, True, None, "", "a\nb"])
def test_an_invalid_image_id_is_refused(detections, image_id):
    with pytest.raises(UserError, match="^image_id is"):
        detections.to_coco(image_id, [18, 17])


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, -1, None, "17", 2**70])
def test_an_invalid_category_id_is_refused_by_the_name_of_its_class(detections, wrong):
    for ids in ([18, wrong], {"dog": 18, "cat": wrong}):
        with pytest.raises(UserError, match="The category id of the class cat is"):
            detections.to_coco(1, ids)


@pytest.mark.parametrize("ids", [None, 17, np.array(17)])
def test_what_holds_no_category_ids_is_refused(detections, ids):
    with pytest.raises(UserError, match="There is no category id for the class cat"):
        detections.to_coco(1, ids)


def test_numbers_of_numpy_are_ids(detections):
    entry = detections.to_coco(np.int64(5), {"dog": np.int32(18), "cat": np.int64(17)})[0]
    assert type(entry["image_id"]) is int and (entry["image_id"], entry["category_id"]) == (5, 17)


@pytest.mark.parametrize("side", [0, -1, 1.5, float("nan"), None, "100", True, 10**9])
def test_a_thumbnail_of_an_impossible_side_is_refused(detections, side):
    with pytest.raises(UserError, match="The side of a thumbnail is .*whole number from 1 to"):
        detections.thumbnail(side)


@pytest.mark.parametrize(("side", "size"), [(1, (1, 1)), (15, (15, 10)), (np.int64(60), (60, 40))])
def test_a_thumbnail_has_its_side(detections, tmp_path, side, size):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "photo.png")
    detections.file_name = str(tmp_path / "photo.png")
    assert detections.thumbnail(side).size == size


def test_a_thumbnail_of_a_narrow_picture_has_at_least_one_pixel(tmp_path):
    Image.new("RGB", (500, 2)).save(tmp_path / "narrow.png")
    instances = Instances(
        (2, 500),
        pred_boxes=Boxes(torch.tensor([[0.0, 0.0, 400.0, 2.0]])),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([0]),
    )
    narrow = ImageDetections(instances, ("dog",), None, str(tmp_path / "narrow.png"))
    assert narrow.thumbnail(20).size == (20, 1)


def test_a_drawing_is_the_same_at_each_call_and_shows_each_object(detections):
    plain = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    drawn = np.asarray(detections.draw(plain))
    assert drawn.shape == plain.shape and np.array_equal(
        drawn, np.asarray(detections.draw(Image.fromarray(plain)))
    )
    assert (drawn != 128).any() and np.array_equal(np.asarray(detections[[]].draw(plain)), plain)


def test_a_drawing_outlines_masks_and_keeps_the_colours_inside(detections):
    mask = np.zeros((400, 600), np.uint8)
    mask[100:300, 100:500] = 1
    instances = Instances(
        (400, 600),
        pred_boxes=Boxes(torch.tensor([[100.0, 100, 500, 300]])),
        scores=torch.tensor([0.9]),
        pred_classes=torch.tensor([0]),
    )
    plain = np.full((400, 600, 3), 128, np.uint8)
    for rles in ([mask_tools.encode(np.asfortranarray(mask))], None):
        changed = (np.asarray(ImageDetections(instances, ("dog",), rles).draw(plain)) != 128).any(
            axis=2
        )
        assert changed[298:302, 300].any() and changed[80:100, 105].any()
        assert not changed[110:290, 110:490].any()


def test_a_drawing_needs_the_picture_that_was_looked_at(detections):
    with pytest.raises(
        UserError, match="The picture is 5 x 4 pixels; the detections are of one with 30 x 20"
    ):
        detections.draw(np.zeros((4, 5, 3), np.uint8))
    nameless = ImageDetections(detections.instances)
    with pytest.raises(
        UserError, match=r"without a file; pass the picture: detections.draw\(picture\)"
    ):
        nameless.draw()


def test_objects_of_each_class_are_counted(detections):
    assert detections.count() == {"cat": 2, "dog": 1} and detections[[]].count() == {}


def test_supervision_has_the_same_boxes_names_and_masks(detections):
    pytest.importorskip("supervision")
    theirs = detections.to_supervision()
    assert theirs.xyxy.tolist() == BOXES and theirs.class_id.tolist() == [1, 0, 1]
    assert theirs.data["class_name"].tolist() == ["cat", "dog", "cat"]
    assert np.array_equal(theirs.mask, masks()) and theirs.confidence[0] == np.float32(0.9)
    assert detections[[]].to_supervision().is_empty()


def test_it_says_the_best_of_what_was_found(detections):
    assert repr(detections) == "ImageDetections(photo.jpg: 3 found: cat 0.90, dog 0.60, cat 0.30)"
    assert repr(detections[[]]) == "ImageDetections(photo.jpg: 0 found)"


@pytest.mark.parametrize(
    "name",
    [
        r"$\frac{1}{$",
        "a$b",
        "_hidden",
        "two\nlines",
        "\x1b[31mred",
        "\u202eabc",
        "\ud800",
        "x" * 5000,
    ],
)
def test_class_names_are_drawn_and_shown_as_text(detections, name):
    found = ImageDetections(
        detections.instances, (name, name), detections.rles, "\x1b]0;title\x07.jpg"
    )
    assert found.draw(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).size[0] > 0
    assert not set(repr(found)) & set("\x1b\x07\n\u202e\ud800")
