import pytest
import torch
from detectron2.layers import batched_nms

from virtex_det.errors import UserError
from virtex_det.evaluation.detection.box_masks import UnpastedMasks, instances_of
from virtex_det.modeling import build_model
from virtex_det.modeling.exportable import ABSENT, exportable, grouped_nms

C4 = (
    *("MODEL.BACKBONE.NAME", "build_caption_resnet_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", "['res4']", "MODEL.RPN.IN_FEATURES", "['res4']"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[16, 32]]", "MODEL.ROI_HEADS.IN_FEATURES", "['res4']"),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14),
)
RETINANET = (
    *("MODEL.META_ARCHITECTURE", "RetinaNet", "MODEL.MASK_ON", False),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
    *("MODEL.RETINANET.IN_FEATURES", "['p3', 'p4', 'p5', 'p6', 'p7']"),
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[16], [24], [32], [48], [64]]"),
    *("MODEL.RETINANET.NUM_CLASSES", 8, "MODEL.RETINANET.NUM_CONVS", 1),
    *("MODEL.RETINANET.SCORE_THRESH_TEST", 0.0, "MODEL.RETINANET.TOPK_CANDIDATES_TEST", 30),
)
MODELS = {
    "Mask R-CNN FPN": (),
    "Mask R-CNN FPN of BGR images": ("INPUT.FORMAT", "BGR"),
    "one mask and one box for all classes": (
        *("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK", True),
        *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
    ),
    "sigmoids as scores": ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
    "Faster R-CNN FPN": ("MODEL.MASK_ON", False),
    "Faster R-CNN C4": (
        *C4,
        "MODEL.ROI_HEADS.NAME",
        "Res5ROIHeadsExtraNorm",
        "MODEL.MASK_ON",
        False,
    ),
    "Mask R-CNN C4": (*C4, "MODEL.ROI_HEADS.NAME", "CaptionRes5ROIHeads"),
    "RetinaNet": RETINANET,
}


@pytest.fixture
def detector(detector_cfg):
    def make(*options):
        keys = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.DEVICE", "cpu")
        cfg = detector_cfg(*keys, *options)
        torch.manual_seed(0)
        return build_model(cfg).eval().requires_grad_(False), cfg

    return make


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_a_batch_has_the_detections_of_its_images_in_the_model(detector, options):
    assert_same(*detector(*options))


def test_boxes_that_leave_the_image_are_dropped(detector):
    model, cfg = detector("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.12)
    model.proposal_generator.rpn_head.anchor_deltas.bias[0] = 1.5  # widths to the right
    model.roi_heads.box_predictor.bbox_pred.bias[0] = 20  # of class 0, two widths to the right
    model.roi_heads.box_predictor.cls_score.bias[:4] = 2
    assert_same(model, cfg)


def assert_same(model, cfg):
    """Compare the detections in a batch with those of the model, image by image."""
    images = torch.randint(0, 256, (2, 3, 70, 101), dtype=torch.uint8)
    form = exportable(model, cfg.INPUT.FORMAT)
    outputs = dict(zip(form.outputs, form(images), strict=True))
    for number, image in enumerate(images):
        ordered = image.flip(0) if cfg.INPUT.FORMAT == "BGR" else image
        example = {"image": ordered, "height": 70, "width": 101}
        expected = instances_of(UnpastedMasks.of(model)([example])[0], example)
        found = {name: output[number, : len(expected)] for name, output in outputs.items()}
        assert len(expected) > 5 and (outputs["classes"][number, len(expected) :] == -1).all()
        assert torch.equal(found["classes"], expected.pred_classes)
        torch.testing.assert_close(found["scores"], expected.scores)
        torch.testing.assert_close(found["boxes"], expected.pred_boxes.tensor, rtol=1e-5, atol=1e-4)
        assert ("masks" in found) == expected.has("box_masks")
        if "masks" in found:
            torch.testing.assert_close(found["masks"], expected.box_masks, rtol=1e-4, atol=1e-5)


def test_where_nothing_is_found_there_is_padding(detector):
    model, _ = detector("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    boxes, scores, classes, masks = exportable(model, "RGB")(torch.zeros(1, 3, 64, 64).byte())
    assert (classes == -1).all() and not boxes.any() and not scores.any() and not masks.any()


@pytest.mark.parametrize("kinds", [1, 3])
def test_boxes_are_suppressed_within_their_group_and_kind(kinds):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 40, 2, generator=generator) * 60
    boxes = torch.cat((corners, corners + 20), dim=2)
    scores = torch.rand(2, kinds, 40, generator=generator)
    scores[scores < 0.2] = ABSENT
    kept = grouped_nms(boxes, scores, 0.5)
    for group in range(2):
        for kind in range(kinds):
            [present] = (scores[group, kind] > ABSENT).nonzero(as_tuple=True)
            of_one_class = torch.zeros_like(present)
            chosen = batched_nms(
                boxes[group, present], scores[group, kind, present], of_one_class, 0.5
            )
            expected = torch.zeros(40, dtype=torch.bool)
            expected[present[chosen]] = True
            assert torch.equal(kept[group, kind], expected) and expected.sum() < len(present)


def test_high_numbers_of_classes_do_not_blur_the_boxes():
    # An IoU of 0.5001 and one of 0.4999, which the shift of class 1000 would round to 0.5.
    boxes = torch.tensor([[0, 0, 30, 30], [0, 0, 30, 15.003], [0, 0, 1333, 1333]]).expand(1, 3, 4)
    scores = torch.full((1, 1203, 3), ABSENT)
    scores[0, 1200, :2] = torch.tensor([0.9, 0.8])
    scores[0, 0, 2] = 0.5
    kept = grouped_nms(boxes, scores, 0.5)
    assert kept[0, 1200].tolist() == [True, False, False]
    assert grouped_nms(boxes, scores, 0.5002)[0, 1200].tolist() == [True, True, False]


REFUSED = {
    "PanopticFPN": (("MODEL.META_ARCHITECTURE", "PanopticFPN"), "PanopticFPN .*GeneralizedRCNN"),
    "Cascade R-CNN": (
        (
            *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
            *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
        ),
        r"CascadeROIHeads \(MODEL.ROI_HEADS.NAME\)",
    ),
    "RoIPool": (("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIPool"), "RoIPool .*POOLER_TYPE"),
    "any number": (("TEST.DETECTIONS_PER_IMAGE", -1), "TEST.DETECTIONS_PER_IMAGE is -1"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_other_models_are_refused_by_name(detector, options, said):
    model, cfg = detector(*options)
    with pytest.raises(UserError, match=said):
        exportable(model, cfg.INPUT.FORMAT)


def test_a_subclass_that_may_compute_something_else_is_refused(detector):
    model, cfg = detector()
    heads = type(model.roi_heads)
    model.roi_heads.__class__ = type("MyHeads", (heads,), {})
    with pytest.raises(UserError, match="MyHeads .MODEL.ROI_HEADS.NAME. cannot be exported"):
        exportable(model, cfg.INPUT.FORMAT)
