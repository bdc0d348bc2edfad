"""Detectors as functions of tensors alone, which torch.export, torch.jit.trace and ONNX can take.

Detectron2's models loop over lists of images and branch on what they find. Here are the same
layers, with the same steps between them, on batches of fixed shape: what is absent has the score
minus infinity, and what was not found is padding.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from detectron2.layers import ROIAlign
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch import RetinaNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import (
    FastRCNNOutputLayers,
    MaskRCNNConvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from virtex_det.errors import UserError
from virtex_det.modeling.roi_heads import CaptionRes5ROIHeads, Res5ROIHeadsExtraNorm

ABSENT = float("-inf")

# Boxes (groups, N, 4), scores (groups, kinds, N) and a threshold of IoU in; who is kept, out.
GroupedNMS: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]

_RES5_HEADS = (Res5ROIHeads, CaptionRes5ROIHeads, Res5ROIHeadsExtraNorm)


def grouped_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Suppress boxes that overlap a better one of the same group and kind.

    Groups and kinds are shifted apart, in float64: in float32, where Detectron2 shifts, the
    coordinates of high class numbers lose up to a hundredth of a pixel.

    Args:
        boxes: (groups, N, 4): x0, y0, x1, y1.
        scores: (groups, kinds, N); minus infinity where there is no box.
        threshold: largest IoU of two boxes that are both kept.

    Returns:
        (groups, kinds, N) bool: true for the boxes that are kept.
    """
    group, kind, index = (scores > ABSENT).nonzero().unbind(1)
    span = (boxes.amax() - boxes.amin()).double() + 1
    shift = (group * scores.shape[1] + kind).double() * span
    shifted = boxes[group, index].double() + shift[:, None]
    kept = nms(shifted, scores[group, kind, index].double(), threshold)
    place = (group[kept], kind[kept], index[kept])
    return torch.zeros_like(scores, dtype=torch.bool).index_put(
        place, torch.ones_like(kept, dtype=torch.bool)
    )


class ExportableDetector(nn.Module, ABC):
    """A detector whose input and outputs are tensors; `exportable` makes one.

    Attributes:
        outputs: names of the outputs.
    """

    model: Any
    outputs: tuple[str, ...] = ("boxes", "scores", "classes")

    def __init__(self, model: nn.Module, channels: str, nms: GroupedNMS = grouped_nms) -> None:
        """
        Args:
            model: a GeneralizedRCNN or RetinaNet in evaluation mode.
            channels: "RGB" or "BGR", its INPUT.FORMAT.
            nms: as `grouped_nms`.
        """
        super().__init__()
        self.model = model
        self.channels = channels
        self.nms = nms
        self.eval()

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            images: (batch, 3, height, width), RGB in 0..255, resized as the model needs it.

        Returns:
            Boxes (batch, D, 4) in pixels of the images, scores (batch, D), classes (batch, D), and
            for a Mask R-CNN the masks in the boxes (batch, D, M, M) as probabilities; D is
            TEST.DETECTIONS_PER_IMAGE. The best come first; after the last, the class is -1 and all
            else 0.
        """

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the backbone's feature maps, as after Detectron2's ``preprocess_image``."""
        ordered = images.flip(1) if self.channels == "BGR" else images
        normalised = (ordered - self.model.pixel_mean) / self.model.pixel_std
        multiple = max(self.model.backbone.size_divisibility, 1)
        height, width = images.shape[2:]
        return self.model.backbone(F.pad(normalised, (0, -width % multiple, 0, -height % multiple)))


class ExportableRCNN(ExportableDetector):
    """Faster and Mask R-CNN, with an FPN or with res5 in the heads (C4)."""

    def __init__(self, model: nn.Module, channels: str, nms: GroupedNMS = grouped_nms) -> None:
        super().__init__(model, channels, nms)
        if self.model.roi_heads.mask_on:
            self.outputs = (*self.outputs, "masks")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect objects; see `ExportableDetector`."""
        height, width = images.shape[2:]
        features = self._features(images)
        proposals, real = self._proposals(features, height, width)
        boxes, scores, classes = self._detections(features, proposals, real, height, width)
        if not self.model.roi_heads.mask_on:
            return boxes, scores, classes
        return boxes, scores, classes, self._masks(features, boxes, classes)

    def _proposals(
        self, features: dict[str, Tensor], height: int, width: int
    ) -> tuple[Tensor, Tensor]:
        """Return (batch, P, 4) proposals, and which of them there are (batch, P)."""
        rpn = self.model.proposal_generator
        maps = [features[name] for name in rpn.in_features]
        all_boxes, all_scores = [], []
        for level, (logits, deltas) in enumerate(zip(*rpn.rpn_head(maps), strict=True)):
            scores, best = _best(_per_anchor(logits, 1)[..., 0], rpn.pre_nms_topk[False])
            anchors = _anchors(rpn.anchor_generator, level, maps[level])[best]
            boxes = _decode(rpn.box2box_transform, _pick(_per_anchor(deltas, 4), best), anchors)
            boxes = _clip(boxes, height, width)
            extents = boxes[..., 2:] - boxes[..., :2]
            scores = torch.where((extents > rpn.min_box_size).all(dim=2), scores, ABSENT)
            kept = self.nms(boxes, scores[:, None], rpn.nms_thresh)[:, 0]
            all_boxes.append(boxes)
            all_scores.append(torch.where(kept, scores, ABSENT))
        scores, best = _best(torch.cat(all_scores, dim=1), rpn.post_nms_topk[False])
        return _pick(torch.cat(all_boxes, dim=1), best), scores > ABSENT

    def _detections(
        self,
        features: dict[str, Tensor],
        proposals: Tensor,
        real: Tensor,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and classes of the detections."""
        predictor = self.model.roi_heads.box_predictor
        logits, deltas = predictor(self._box_features(features, proposals))
        number, kinds = proposals.shape[1], predictor.num_classes
        # shape: (batch, P, kinds or 1, 4)
        boxes = predictor.box2box_transform.apply_deltas(deltas, proposals.flatten(0, 1))
        boxes = _clip(boxes.unflatten(1, (-1, 4)).unflatten(0, (-1, number)), height, width)
        # shape: (batch, kinds, P, 4)
        boxes = boxes.expand(-1, -1, kinds, -1).transpose(1, 2)
        chances = logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(dim=1)
        # shape: (batch, kinds, P)
        scores = chances[:, :-1].unflatten(0, (-1, number)).transpose(1, 2)
        wanted = real[:, None] & (scores > predictor.test_score_thresh)
        scores = torch.where(wanted, scores, ABSENT)
        groups = boxes.flatten(0, 1), scores.flatten(0, 1)[:, None]
        kept = self.nms(*groups, predictor.test_nms_thresh)[:, 0].unflatten(0, (-1, kinds))
        scores = torch.where(kept, scores, ABSENT).flatten(1)
        scores, best = _best(scores, predictor.test_topk_per_image)
        return _found(_pick(boxes.flatten(1, 2), best), scores, best // number)

    def _box_features(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        heads = self.model.roi_heads
        if isinstance(heads, Res5ROIHeads):
            return self._res5_features(features, boxes).mean(dim=(2, 3))
        maps = [features[name] for name in heads.box_in_features]
        return heads.box_head(_pool(heads.box_pooler, maps, boxes))

    def _res5_features(self, features: dict[str, Tensor], boxes: Tensor) -> Tensor:
        heads = self.model.roi_heads
        return heads.res5(_pool(heads.pooler, [features[n] for n in heads.in_features], boxes))

    def _masks(self, features: dict[str, Tensor], boxes: Tensor, classes: Tensor) -> Tensor:
        """Return (batch, D, M, M) probabilities; 0 where there is no detection."""
        heads = self.model.roi_heads
        if isinstance(heads, Res5ROIHeads):
            inside = self._res5_features(features, boxes)
        else:
            maps = [features[name] for name in heads.mask_in_features]
            inside = _pool(heads.mask_pooler, maps, boxes)
        logits = heads.mask_head.layers(inside)
        if logits.shape[1] > 1:  # a mask for each class
            own = classes.flatten().clamp(min=0)[:, None, None, None]
            logits = logits.gather(1, own.expand(-1, 1, *logits.shape[2:]))
        masks = logits[:, 0].sigmoid().unflatten(0, (-1, boxes.shape[1]))
        return torch.where(classes[..., None, None] >= 0, masks, 0.0)


class ExportableRetinaNet(ExportableDetector):
    """RetinaNet."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect objects; see `ExportableDetector`."""
        model, kinds = self.model, self.model.num_classes
        features = self._features(images)
        maps = [features[name] for name in model.head_in_features]
        all_boxes, all_scores, all_classes = [], [], []
        for level, (logits, deltas) in enumerate(zip(*model.head(maps), strict=True)):
            scores = _per_anchor(logits, kinds).sigmoid().flatten(1)
            scores = torch.where(scores > model.test_score_thresh, scores, ABSENT)
            scores, best = _best(scores, model.test_topk_candidates)
            anchors = _anchors(model.anchor_generator, level, maps[level])[best // kinds]
            own = _pick(_per_anchor(deltas, 4), best // kinds)
            all_boxes.append(_decode(model.box2box_transform, own, anchors))
            all_scores.append(scores)
            all_classes.append(best % kinds)
        boxes, scores, classes = (
            torch.cat(each, dim=1) for each in (all_boxes, all_scores, all_classes)
        )
        numbers = torch.arange(kinds, device=classes.device)[:, None]
        per_class = torch.where(classes[:, None] == numbers, scores[:, None], ABSENT)
        kept = self.nms(boxes, per_class, model.test_nms_thresh).any(dim=1)
        scores, best = _best(torch.where(kept, scores, ABSENT), model.max_detections_per_image)
        boxes = _clip(_pick(boxes, best), *images.shape[2:])
        return _found(boxes, scores, classes.gather(1, best))


def exportable(model: Any, channels: str, nms: GroupedNMS = grouped_nms) -> ExportableDetector:
    """Return the exportable form of a detector, which shares its layers.

    Args:
        model: a GeneralizedRCNN or RetinaNet in evaluation mode.
        channels: "RGB" or "BGR", its INPUT.FORMAT.
        nms: as `grouped_nms`.

    Raises:
        UserError: the model, or a part of it, has no such form.
    """
    form: type[ExportableDetector]
    if type(model) is GeneralizedRCNN:
        _check_rcnn(model)
        form, number = ExportableRCNN, model.roi_heads.box_predictor.test_topk_per_image
    else:
        _check_part("MODEL.META_ARCHITECTURE", model, GeneralizedRCNN, RetinaNet)
        _check_part("MODEL.ANCHOR_GENERATOR.NAME", model.anchor_generator, DefaultAnchorGenerator)
        form, number = ExportableRetinaNet, model.max_detections_per_image
    if (model.backbone.padding_constraints or {}).get("square_size"):
        raise UserError(
            f"{type(model.backbone).__name__} (MODEL.BACKBONE.NAME) cannot be exported: it takes "
            "square images only."
        )
    if number < 1:
        raise UserError(
            f"TEST.DETECTIONS_PER_IMAGE is {number}, but an exported model has outputs of a fixed "
            "size. Set it, for example to 100."
        )
    return form(model, channels, nms)


def program_of(model: ExportableDetector, images: Tensor) -> torch.export.ExportedProgram:
    """Return a model as a program of torch.export, whose batch, height and width are free.

    Args:
        model: without parameters that need gradients.
        images: an example of its input, of two images or more.
    """
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    return torch.export.export(model, (images,), dynamic_shapes={"images": free}, strict=False)


def _check_rcnn(model: Any) -> None:
    rpn, heads = model.proposal_generator, model.roi_heads
    _check_part("MODEL.PROPOSAL_GENERATOR.NAME", rpn, RPN)
    _check_part("MODEL.ANCHOR_GENERATOR.NAME", rpn.anchor_generator, DefaultAnchorGenerator)
    _check_part("MODEL.ROI_HEADS.NAME", heads, StandardROIHeads, *_RES5_HEADS)
    _check_part("the box predictor", heads.box_predictor, FastRCNNOutputLayers)
    if heads.mask_on:
        _check_part("MODEL.ROI_MASK_HEAD.NAME", heads.mask_head, MaskRCNNConvUpsampleHead)
    if getattr(heads, "keypoint_on", False):
        raise UserError("A model of keypoints (MODEL.KEYPOINT_ON) cannot be exported.")
    for name, pooler in heads.named_children():
        if name.endswith("pooler"):
            for align in pooler.level_poolers:
                if not isinstance(align, ROIAlign):
                    _check_part("POOLER_TYPE", align, ROIAlign)


def _check_part(key: str, part: object, *known: type) -> None:
    """Refuse a part that is not exactly of a known type: a subclass may compute something else."""
    if type(part) not in known:
        names = ", ".join(each.__name__ for each in known)
        raise UserError(f"{type(part).__name__} ({key}) cannot be exported. What can be: {names}.")


def _per_anchor(predictions: Tensor, numbers: int) -> Tensor:
    """Reshape (batch, anchors * numbers, H, W) to (batch, H * W * anchors, numbers)."""
    return predictions.unflatten(1, (-1, numbers)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def _anchors(generator: DefaultAnchorGenerator, level: int, feature_map: Tensor) -> Tensor:
    """Return the anchors of a feature map, (H * W * anchors, 4).

    The generator itself counts them from a range of floats, whose length is not known to be H.
    """
    stride, device = generator.strides[level], feature_map.device
    y, x = (
        (torch.arange(length, device=device) + generator.offset) * stride
        for length in feature_map.shape[2:]
    )
    y, x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack((x, y, x, y), dim=2).reshape(-1, 1, 4)
    return (centres + list(generator.cell_anchors)[level]).flatten(0, 1)


def _best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the best scores of each row, and their indices; where there are too few, absent ones.

    Args:
        scores: (batch, N).
        number: how many.

    Returns:
        (batch, number) and (batch, number); the index of an absent score is 0.
    """
    found, index = F.pad(scores, (0, number), value=ABSENT).topk(number, dim=1)
    return found, torch.where(found > ABSENT, index, 0)


def _pick(rows: Tensor, index: Tensor) -> Tensor:
    """Return rows (batch, N, 4) at indices (batch, M), as (batch, M, 4)."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[2]))


def _decode(transform: Any, deltas: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes (batch, N, 4) of deltas and anchors of that shape."""
    boxes = transform.apply_deltas(deltas.flatten(0, 1), anchors.flatten(0, 1))
    return boxes.unflatten(0, (-1, deltas.shape[1]))


def _clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Clip (..., 4) boxes to an image."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return torch.stack(
        (x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)), dim=-1
    )


def _found(boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return detections without boxes that have no area, which Detectron2 drops last; padded."""
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    scores, order = _best(torch.where(has_area, scores, ABSENT), scores.shape[1])
    real = scores > ABSENT
    return (
        torch.where(real[..., None], _pick(boxes, order), 0.0),
        torch.where(real, scores, 0.0),
        torch.where(real, classes.gather(1, order), -1),
    )


def _pool(pooler: ROIPooler, maps: list[Tensor], boxes: Tensor) -> Tensor:
    """Pool the boxes of all images, each from the level of its size, as `ROIPooler` does.

    Args:
        pooler: with a ROIAlign for each map.
        maps: (batch, C, H, W) each.
        boxes: (batch, N, 4).

    Returns:
        (batch * N, C, *output_size)
    """
    numbers = torch.arange(boxes.shape[0], device=boxes.device).to(boxes.dtype)
    rois = torch.cat((numbers[:, None, None].expand(-1, boxes.shape[1], 1), boxes), dim=2)
    rois = rois.flatten(0, 1)
    if len(maps) == 1:
        return pooler.level_poolers[0](maps[0], rois)
    # Lin et al. 2017, "Feature Pyramid Networks", eq. 1
    size = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    level = pooler.canonical_level + torch.log2(size / pooler.canonical_box_size + 1e-8)
    level = level.floor().clamp(pooler.min_level, pooler.max_level).long() - pooler.min_level
    pooled = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *pooler.output_size)
    for number, (align, feature_map) in enumerate(zip(pooler.level_poolers, maps, strict=True)):
        of_level = (level == number).nonzero()[:, 0]
        pooled = pooled.index_put((of_level,), align(feature_map, rois[of_level]))
    return pooled
