import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances, PolygonMasks

from virtex_det.data.collate import LARGEST_PACKED_IMAGE, UnpackingLoader, pack


@pytest.fixture
def example():
    instances = Instances((2, 4), gt_boxes=Boxes(torch.rand(2, 4)), gt_classes=torch.tensor([1, 2]))
    instances.gt_masks = PolygonMasks(
        [[np.array([0.0, 0, 4, 0, 4, 4])], [np.array([1.0, 1, 5, 1, 5, 5])]]
    )
    return {
        "image": torch.arange(24, dtype=torch.uint8).view(3, 2, 4),
        "instances": instances,
        "image_id": 3,
    }


def unpack(packed):
    return next(iter(UnpackingLoader([packed])))


def test_a_packed_batch_is_unpacked_unchanged(example):
    packed = pack([example])
    assert packed.dtype == torch.uint8 and packed.ndim == 1
    (unpacked,) = unpack(packed)
    assert torch.equal(unpacked["image"], example["image"]) and unpacked["image_id"] == 3
    for field in ("gt_boxes", "gt_masks", "gt_classes"):
        assert str(unpacked["instances"].get(field)) == str(example["instances"].get(field))
    assert torch.equal(unpacked["instances"].gt_boxes.tensor, example["instances"].gt_boxes.tensor)
    assert np.array_equal(
        unpacked["instances"].gt_masks.polygons, example["instances"].gt_masks.polygons
    )


def test_a_single_example_is_packed_too(example):
    assert torch.equal(unpack(pack(example))["image"], example["image"])


def test_an_unpacked_tensor_can_be_written_to(example):
    (unpacked,) = unpack(pack([example]))
    unpacked["image"].zero_()
    assert not unpacked["image"].any()


def test_large_images_are_not_packed(example):
    batch = [example, {"image": torch.zeros(LARGEST_PACKED_IMAGE + 1, dtype=torch.uint8)}]
    assert pack(batch) is batch and unpack(batch) is batch


def test_batches_of_the_main_process_are_not_packed(example):
    batches = UnpackingLoader([[example], [example]])
    assert list(batches) == [[example], [example]] and len(batches) == 2
