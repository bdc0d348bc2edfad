import numpy as np
import torch
from detectron2.structures import Boxes, Instances, PolygonMasks

from virtex_det.data.workers import UnpackedBatches, pack


def test_a_packed_batch_comes_out_as_it_went_in():
    instances = Instances((8, 8), gt_boxes=Boxes(torch.rand(2, 4)), gt_classes=torch.tensor([1, 2]))
    instances.gt_masks = PolygonMasks([[np.array([0.0, 0, 4, 0, 4, 4])], [np.array([1.0, 1, 5, 1, 5, 5])]])
    image = torch.arange(24, dtype=torch.uint8).view(3, 2, 4)
    packed = pack([{"image": image, "instances": instances, "image_id": 3}])
    assert packed.dtype == torch.uint8 and packed.ndim == 1

    (example,) = next(iter(UnpackedBatches([packed])))
    assert torch.equal(example["image"], image) and example["image_id"] == 3
    assert torch.equal(example["instances"].gt_boxes.tensor, instances.gt_boxes.tensor)
    assert torch.equal(example["instances"].gt_classes, instances.gt_classes)
    assert np.array_equal(example["instances"].gt_masks.polygons[1][0], instances.gt_masks.polygons[1][0])


def test_an_unpacked_tensor_can_be_written_to():
    (tensor,) = next(iter(UnpackedBatches([pack([torch.zeros(3)])])))
    tensor += 1
    assert tensor.tolist() == [1, 1, 1]


def test_batches_of_the_main_process_pass_through():
    batches = UnpackedBatches([[{"image_id": 1}], [{"image_id": 2}]])
    assert list(batches) == [[{"image_id": 1}], [{"image_id": 2}]] and len(batches) == 2
