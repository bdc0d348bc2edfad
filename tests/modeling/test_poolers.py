"""ROIAlign as a gather: the same numbers as torchvision's."""

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn
from torchvision.ops import roi_align

from virtex_det.config import get_cfg
from virtex_det.modeling.poolers import GatherROIAlign, use_gather_roi_align


def draw_rois(count: int, images: int, height: int, width: int) -> Tensor:
    """Boxes of very different sizes, many of them partly or wholly outside the image."""
    centre = (torch.rand(count, 2) * 1.6 - 0.3) * torch.tensor([width, height])
    half = torch.exp(torch.rand(count, 2) * 4 - 1)
    return torch.cat(
        [torch.randint(images, (count, 1)).float(), centre - half, centre + half], dim=1
    )


def assert_same_as_torchvision(align: ROIAlign, features: Tensor, rois: Tensor) -> None:
    ours, theirs = features.clone().requires_grad_(), features.clone().requires_grad_()
    pooled = align(ours, rois)
    expected = roi_align(
        theirs, rois, align.output_size, align.spatial_scale, align.sampling_ratio, align.aligned
    )
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
    gradient = torch.randn_like(expected)
    pooled.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-4)


def test_a_traced_module_pools_any_number_of_regions_of_any_map():
    align = GatherROIAlign((3, 3), 0.5, 0, True)
    small = torch.tensor([[0.0, 2.0, 2.0, 4.0, 5.0]]).repeat(40, 1)
    traced = torch.jit.trace(align, (torch.rand(1, 4, 12, 9), small))
    features, rois = torch.rand(2, 4, 20, 17), draw_rois(60, 2, 20, 17)
    torch.testing.assert_close(traced(features, rois), align(features, rois))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("output_size", [(7, 7), (3, 5), (1, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_equals_torchvision(
    aligned: bool, sampling_ratio: int, output_size: tuple[int, int], scale: float
) -> None:
    torch.manual_seed(sampling_ratio)
    rois = draw_rois(300, images=3, height=int(13 / scale), width=int(17 / scale))
    align = GatherROIAlign(output_size, scale, sampling_ratio, aligned)
    assert_same_as_torchvision(align, torch.randn(3, 5, 13, 17), rois)


@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_equals_torchvision_on_the_smallest_maps(
    sampling_ratio: int, shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    align = GatherROIAlign((4, 4), 1.0, sampling_ratio, True)
    assert_same_as_torchvision(align, torch.randn(2, 3, *shape), draw_rois(50, 2, *shape))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_equals_torchvision_on_boxes_without_area(aligned: bool, sampling_ratio: int) -> None:
    boxes = [[3, 3, 3, 3], [0, 0, 0, 7], [9, 2, 2, 2], [0, 0, 9, 9]]
    rois = torch.tensor([[0, *box] for box in boxes], dtype=torch.float32)
    align = GatherROIAlign((2, 2), 1.0, sampling_ratio, aligned)
    assert_same_as_torchvision(align, torch.randn(1, 2, 10, 10), rois)


@pytest.mark.parametrize("aligned", [True, False])
def test_equals_torchvision_on_inverted_boxes(aligned: bool) -> None:
    rois = torch.tensor([[0, 5, 2, 1, 8], [0, 9, 9, 2, 2], [0, 0, 0, 9, 9]], dtype=torch.float32)
    assert_same_as_torchvision(
        GatherROIAlign((3, 3), 1.0, 2, aligned), torch.randn(1, 2, 10, 10), rois
    )


def test_boxes_outside_the_image_pool_zeros() -> None:
    rois = torch.tensor([[0, -50, -50, -40, -40], [0, 90, 90, 99, 99]], dtype=torch.float32)
    pooled = GatherROIAlign((7, 7), 1.0, 2, True)(torch.ones(1, 1, 9, 9), rois)
    assert torch.equal(pooled, torch.zeros(2, 1, 7, 7))


@pytest.mark.parametrize("count", [0, 1])
def test_few_regions_on_a_large_map(count: int) -> None:
    align = GatherROIAlign((2, 2), 1.0, 0, True)
    assert_same_as_torchvision(align, torch.randn(1, 2, 64, 64), draw_rois(count, 1, 64, 64))


def test_large_bins_with_few_samples() -> None:
    assert_same_as_torchvision(
        GatherROIAlign((1, 1), 1.0, 2, True), torch.randn(1, 2, 40, 40), draw_rois(300, 1, 40, 40)
    )


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_gradient_is_exact(sampling_ratio: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    rois = draw_rois(12, 2, 5, 6).double()
    align = GatherROIAlign((3, 2), 1.0, sampling_ratio, True)
    assert torch.autograd.gradcheck(lambda x: align(x, rois), features)


def test_half_precision_features_are_pooled_in_float32_at_unrounded_boxes() -> None:
    features, rois = (
        torch.randn(1, 3, 40, 40).bfloat16(),
        torch.tensor([[0, 513.3, 301.7, 611.1, 620.9]]).repeat(99, 1),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = GatherROIAlign((7, 7), 1 / 16, 0, True)(features, rois)
    assert pooled.dtype == torch.bfloat16
    expected = roi_align(features.float(), rois, (7, 7), 1 / 16, 0, True)
    torch.testing.assert_close(pooled.float(), expected, atol=1e-5, rtol=2**-8)


def test_channels_last_features_give_the_same_result() -> None:
    features, rois = torch.randn(2, 4, 12, 12), draw_rois(40, 2, 12, 12)
    align = GatherROIAlign((7, 7), 1.0, 0, True)
    assert torch.equal(
        align(features, rois), align(features.to(memory_format=torch.channels_last), rois)
    )


def test_an_fpn_pooler_is_replaced_level_by_level_and_pools_the_same() -> None:
    torch.manual_seed(0)
    pooler = ROIPooler(
        7, scales=(1 / 4, 1 / 8), sampling_ratio=0, pooler_type="ROIAlignV2", canonical_box_size=32
    )
    maps, boxes = (
        [torch.randn(1, 3, 32, 32), torch.randn(1, 3, 16, 16)],
        [Boxes(draw_rois(99, 1, 128, 128)[:, 1:])],
    )
    expected = pooler(maps, boxes)
    use_gather_roi_align(nn.Sequential(pooler))
    assert [type(align) for align in pooler.level_poolers] == [GatherROIAlign] * 2
    torch.testing.assert_close(pooler(maps, boxes), expected, atol=1e-5, rtol=1e-5)


def test_other_poolers_stay() -> None:
    pooler = ROIPooler(7, scales=(1 / 4,), sampling_ratio=0, pooler_type="ROIPool")
    before = list(pooler.level_poolers)
    assert list(use_gather_roi_align(pooler).level_poolers) == before


def test_the_parameters_of_a_detector_keep_their_names() -> None:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 50, 16
    model = build_model(cfg)
    names = list(model.state_dict())
    assert list(use_gather_roi_align(model).state_dict()) == names
    assert isinstance(model.roi_heads.pooler.level_poolers[0], GatherROIAlign)
