"""Contradictions between config keys whose values are each valid alone."""

from collections.abc import Iterator, Sequence

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from virtex_det.config.mappers import OURS, mapper_name, unfit_mapper
from virtex_det.config.rules import number

# Number of channels by INPUT.FORMAT.
CHANNELS = {"BGR": 3, "RGB": 3, "HSV": 3, "YCbCr": 3, "L": 1, "RGBA": 4, "CMYK": 4}
LEAST_SIDE = 16  # pixels of an image that a network gets
SMALLEST_CROP = 0.05  # fraction of an image's side; less can leave no pixel
# Backbones whose use of MODEL.RESNETS and whose feature maps we know.
_RESNETS = ("build_resnet_backbone", "build_caption_resnet_backbone")
_PYRAMIDS = {
    "build_resnet_fpn_backbone": 1,
    "build_caption_resnet_fpn_backbone": 1,
    "build_retinanet_resnet_fpn_backbone": 2,
}
_STAGES = ("stem", "res2", "res3", "res4", "res5")
_DEPTHS = (18, 34, 50, 101, 152)
_WITH_RPN = ("GeneralizedRCNN", "ProposalNetwork", "PanopticFPN")
_WITH_BOXES = ("GeneralizedRCNN", "PanopticFPN")
_ON_ONE_MAP = ("Res5ROIHeads", "CaptionRes5ROIHeads", "Res5ROIHeadsExtraNorm")


def contradictions(cfg: CfgNode) -> Iterator[str]:
    """Yield a message for each contradiction; each value has passed its own rule."""
    of_data = (unfit_mapper, _pixels, _sizes, _crops, _schedule, _text)
    of_detectors = (_resnet, _features, _anchors, _thresholds, _heads)
    for check in (*of_data, *of_detectors):
        yield from check(cfg)
    yield from _expected_results(cfg)


def _pixels(cfg: CfgNode) -> Iterator[str]:
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        yield (
            f"MODEL.PIXEL_MEAN has {len(mean)} values and MODEL.PIXEL_STD has {len(std)}; both "
            f"need one per channel: {CHANNELS[cfg.INPUT.FORMAT]} for INPUT.FORMAT "
            f"{cfg.INPUT.FORMAT}."
        )
    elif mapper_name(cfg) in OURS and len(mean) != CHANNELS[cfg.INPUT.FORMAT]:
        yield (
            f"MODEL.PIXEL_MEAN and PIXEL_STD have {len(mean)} values, but INPUT.FORMAT "
            f"{cfg.INPUT.FORMAT} has {CHANNELS[cfg.INPUT.FORMAT]} channels. Set one value per "
            "channel."
        )


def _sizes(cfg: CfgNode) -> Iterator[str]:
    sizes = cfg.INPUT
    for shortest, longest, part in (
        (min(sizes.MIN_SIZE_TRAIN), sizes.MAX_SIZE_TRAIN, "TRAIN"),
        (sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST, "TEST"),
    ):
        if shortest > longest:
            yield (
                f"INPUT.MIN_SIZE_{part} (shortest side) is {shortest}, above INPUT.MAX_SIZE_{part} "
                f"(longest side) {longest}. Raise MAX_SIZE_{part} or lower MIN_SIZE_{part}."
            )
    low_and_high = sizes.MIN_SIZE_TRAIN
    if sizes.MIN_SIZE_TRAIN_SAMPLING == "range" and (
        len(low_and_high) != 2 or low_and_high[0] > low_and_high[1]
    ):
        yield (
            f"INPUT.MIN_SIZE_TRAIN is {low_and_high}, but INPUT.MIN_SIZE_TRAIN_SAMPLING range "
            "needs two sizes, the smallest first, such as (640, 800)."
        )


def _crops(cfg: CfgNode) -> Iterator[str]:
    crop = cfg.INPUT.CROP
    is_relative = crop.TYPE.startswith("relative")
    if is_relative and not all(SMALLEST_CROP <= share <= 1 for share in crop.SIZE):
        yield (
            f"INPUT.CROP.SIZE is {crop.SIZE}, but with INPUT.CROP.TYPE {crop.TYPE} it is a "
            f"fraction of the image, from {SMALLEST_CROP} to 1. For pixels set INPUT.CROP.TYPE "
            "absolute."
        )
    if crop.TYPE.startswith("absolute") and not all(
        isinstance(side, int) and side >= LEAST_SIDE for side in crop.SIZE
    ):
        yield (
            f"INPUT.CROP.SIZE is {crop.SIZE}, but with INPUT.CROP.TYPE {crop.TYPE} it must be "
            f"whole numbers of pixels from {LEAST_SIDE} on."
        )
    if crop.TYPE == "absolute_range" and crop.SIZE[0] > crop.SIZE[1]:
        yield (
            f"INPUT.CROP.SIZE is {crop.SIZE}, but with INPUT.CROP.TYPE absolute_range the smallest "
            "must come first."
        )
    for section in ("CAPTION", "CLASSIFICATION"):
        low, high = cfg.INPUT[section].CROP_SCALE
        if low > high:
            yield (
                f"INPUT.{section}.CROP_SCALE is {cfg.INPUT[section].CROP_SCALE}, but the smallest "
                "share must come first."
            )
    if cfg.INPUT.CAPTION.COLOR_JITTER[3] > 0.5:
        yield (
            f"INPUT.CAPTION.COLOR_JITTER is {cfg.INPUT.CAPTION.COLOR_JITTER}, but its last value, "
            "the hue's, must be at most 0.5."
        )


def _schedule(cfg: CfgNode) -> Iterator[str]:
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and sorted(solver.STEPS) != list(
        solver.STEPS
    ):
        yield f"SOLVER.STEPS is {solver.STEPS}, but steps must increase."
    if (
        solver.LR_SCHEDULER_NAME == "WarmupStepWithFixedGammaLR"
        and solver.NUM_DECAYS >= solver.MAX_ITER
    ):
        yield (
            f"SOLVER.NUM_DECAYS is {solver.NUM_DECAYS} and SOLVER.MAX_ITER {solver.MAX_ITER}: "
            "MAX_ITER must be larger than NUM_DECAYS."
        )
    if solver.NESTEROV and solver.OPTIMIZER == "SGD" and solver.MOMENTUM == 0:
        yield (
            "SOLVER.NESTEROV is True and SOLVER.MOMENTUM is 0: Nesterov's method needs a momentum, "
            "such as 0.9."
        )


def _text(cfg: CfgNode) -> Iterator[str]:
    width, heads = cfg.MODEL.TEXTUAL.HIDDEN_SIZE, cfg.MODEL.TEXTUAL.ATTENTION_HEADS
    if width % heads:
        yield (
            f"MODEL.TEXTUAL.HIDDEN_SIZE {width} cannot be divided by MODEL.TEXTUAL.ATTENTION_HEADS "
            f"{heads}; set HIDDEN_SIZE to a multiple of {heads}."
        )
    caption = cfg.INPUT.CAPTION
    if caption.MASK_PROB + caption.REPLACE_PROB > 1:
        yield (
            f"INPUT.CAPTION.MASK_PROB {caption.MASK_PROB} and REPLACE_PROB {caption.REPLACE_PROB} "
            "are shares of the same tokens: together they must be at most 1."
        )
    if 0 < cfg.DATASETS.CAPTIONS_PER_IMAGE < caption.PER_IMAGE:
        yield (
            f"INPUT.CAPTION.PER_IMAGE asks for {caption.PER_IMAGE} captions of an image in each "
            f"step, but DATASETS.CAPTIONS_PER_IMAGE keeps {cfg.DATASETS.CAPTIONS_PER_IMAGE}. Set "
            "PER_IMAGE to at most that."
        )
    if caption.HIDE_OTHER_WORDS and not caption.CONCEPTS:
        yield (
            "INPUT.CAPTION.HIDE_OTHER_WORDS is True, but INPUT.CAPTION.CONCEPTS, which names the "
            "file of the words that stay, is empty. tools/build_concepts.py makes such a file."
        )
    model = cfg.MODEL.META_ARCHITECTURE
    if caption.HIDE_OTHER_WORDS and not getattr(
        META_ARCH_REGISTRY.get(model), "may_hide_words", False
    ):
        yield (
            f"INPUT.CAPTION.HIDE_OTHER_WORDS is True, but {model} cannot learn from captions with "
            "hidden words; LocTexModel can. Set it False."
        )


def _resnet(cfg: CfgNode) -> Iterator[str]:
    model, name = cfg.MODEL, cfg.MODEL.BACKBONE.NAME
    if name not in (*_RESNETS, *_PYRAMIDS):
        return
    known = (*_DEPTHS, 200) if "caption" in name else _DEPTHS
    if model.RESNETS.DEPTH not in known:
        yield (
            f"MODEL.RESNETS.DEPTH is {model.RESNETS.DEPTH}, but {name} builds "
            f"{', '.join(map(str, known))}."
        )
    if (
        "caption" not in name
        and model.RESNETS.DEPTH in (18, 34)
        and model.RESNETS.RES2_OUT_CHANNELS != 64
    ):
        yield (
            f"MODEL.RESNETS.RES2_OUT_CHANNELS is {model.RESNETS.RES2_OUT_CHANNELS}, but {name} "
            f"builds depth {model.RESNETS.DEPTH} with 64 only. Set it to 64."
        )
    if not 0 <= model.BACKBONE.FREEZE_AT <= 5:
        yield (
            f"MODEL.BACKBONE.FREEZE_AT is {model.BACKBONE.FREEZE_AT}, but must be from 0 (freezes "
            "nothing) to 5 (freezes the stem and res2 to res5)."
        )
    yield from _unknown("MODEL.RESNETS.OUT_FEATURES", model.RESNETS.OUT_FEATURES, _STAGES)
    if name in _PYRAMIDS:
        yield from _unknown(
            "MODEL.FPN.IN_FEATURES", model.FPN.IN_FEATURES, model.RESNETS.OUT_FEATURES
        )
        strided = [name.removeprefix("res") for name in model.FPN.IN_FEATURES]
        yield from _gaps("MODEL.FPN.IN_FEATURES", [f"p{stage}" for stage in strided])
        if not model.FPN.IN_FEATURES:
            yield (
                "MODEL.FPN.IN_FEATURES is empty, but a pyramid needs feature maps, such as [res2, "
                "res3, res4, res5]."
            )


def _features(cfg: CfgNode) -> Iterator[str]:
    """Yield a message for feature maps that a head reads but the backbone does not return."""
    model, given = cfg.MODEL, _given_features(cfg)
    if not given:
        return
    readers = []
    if model.META_ARCHITECTURE in _WITH_RPN and model.PROPOSAL_GENERATOR.NAME in ("RPN", "RRPN"):
        readers.append("RPN")
    if model.META_ARCHITECTURE in _WITH_BOXES:
        readers.append("ROI_HEADS")
    if model.META_ARCHITECTURE == "RetinaNet":
        readers.append("RETINANET")
    if model.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"):
        readers.append("SEM_SEG_HEAD")
    for reader in readers:
        key, read = f"MODEL.{reader}.IN_FEATURES", model[reader].IN_FEATURES
        yield from _unknown(key, read, given)
        if reader == "ROI_HEADS":
            yield from _gaps(key, read)
        if not read:
            yield f"{key} is empty; the backbone returns {', '.join(given)}."


def _given_features(cfg: CfgNode) -> list[str]:
    """Return the names of the backbone's feature maps; empty if they are unknown."""
    model, name = cfg.MODEL, cfg.MODEL.BACKBONE.NAME
    if name in _RESNETS:
        return list(model.RESNETS.OUT_FEATURES)
    levels = [
        _STAGES.index(feature) + 1 for feature in model.FPN.IN_FEATURES if feature in _STAGES[1:]
    ]
    if name not in _PYRAMIDS or not levels:
        return []
    coarser = range(max(levels) + 1, max(levels) + 1 + _PYRAMIDS[name])
    return [f"p{level}" for level in [*levels, *coarser]]


def _gaps(key: str, read: Sequence[str]) -> Iterator[str]:
    """Yield a message if the levels of a pyramid are not consecutive."""
    levels = sorted(int(name[1:]) for name in read if name[1:].isdecimal())
    if len(levels) > 1 and levels != list(range(levels[0], levels[-1] + 1)):
        yield f"{key} is {list(read)}, but the levels must be consecutive."


def _unknown(key: str, read: Sequence[str], given: Sequence[str]) -> Iterator[str]:
    missing = [name for name in read if name not in given]
    if missing:
        yield f"{key} names {', '.join(missing)}, but the backbone has only {', '.join(given)}."


def _anchors(cfg: CfgNode) -> Iterator[str]:
    model = cfg.MODEL
    if model.META_ARCHITECTURE in _WITH_RPN and model.PROPOSAL_GENERATOR.NAME in ("RPN", "RRPN"):
        reader = "RPN"
    elif model.META_ARCHITECTURE == "RetinaNet":
        reader = "RETINANET"
    else:
        return
    maps = model[reader].IN_FEATURES
    for name in ("SIZES", "ASPECT_RATIOS"):
        lists = model.ANCHOR_GENERATOR[name]
        if len(lists) not in (1, len(maps)):
            yield (
                f"MODEL.ANCHOR_GENERATOR.{name} has {len(lists)} lists, but "
                f"MODEL.{reader}.IN_FEATURES has {len(maps)} feature maps ({', '.join(maps)}). "
                "Set one list for each map, or a single list for all."
            )
    rotated = model.PROPOSAL_GENERATOR.NAME == "RRPN"
    unfit = "DefaultAnchorGenerator" if rotated else "RotatedAnchorGenerator"
    if reader == "RPN" and model.ANCHOR_GENERATOR.NAME == unfit:
        yield (
            f"MODEL.ANCHOR_GENERATOR.NAME is {model.ANCHOR_GENERATOR.NAME} and "
            f"MODEL.PROPOSAL_GENERATOR.NAME is {model.PROPOSAL_GENERATOR.NAME}: "
            "RotatedAnchorGenerator and RRPN go together, for rotated boxes."
        )
    if reader == "RPN" and len(model.RPN.BBOX_REG_WEIGHTS) != 4 + rotated:
        yield (
            f"MODEL.RPN.BBOX_REG_WEIGHTS has {len(model.RPN.BBOX_REG_WEIGHTS)} values, but needs "
            f"{4 + rotated}."
        )


def _thresholds(cfg: CfgNode) -> Iterator[str]:
    for section in ("RPN", "ROI_HEADS", "RETINANET"):
        node = cfg.MODEL[section]
        if sorted(node.IOU_THRESHOLDS) != list(node.IOU_THRESHOLDS):
            yield (
                f"MODEL.{section}.IOU_THRESHOLDS is {node.IOU_THRESHOLDS}, but thresholds must "
                "increase."
            )
        if len(node.IOU_LABELS) != len(node.IOU_THRESHOLDS) + 1:
            yield (
                f"MODEL.{section}.IOU_LABELS has {len(node.IOU_LABELS)} labels, but the "
                f"{len(node.IOU_THRESHOLDS)} values of IOU_THRESHOLDS need "
                f"{len(node.IOU_THRESHOLDS) + 1} labels: below, between and above them."
            )


def _heads(cfg: CfgNode) -> Iterator[str]:
    model = cfg.MODEL
    if model.META_ARCHITECTURE not in _WITH_BOXES:
        return
    box, heads = model.ROI_BOX_HEAD, model.ROI_HEADS.NAME
    if heads in _ON_ONE_MAP and len(model.ROI_HEADS.IN_FEATURES) != 1:
        yield (
            f"MODEL.ROI_HEADS.IN_FEATURES is {model.ROI_HEADS.IN_FEATURES}, but {heads} reads one "
            "map, such as [res4]."
        )
    found, needed = len(box.BBOX_REG_WEIGHTS), 5 if heads == "RROIHeads" else 4
    if found != needed:
        yield f"MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS has {found} values, but {heads} needs {needed}."
    for head in ("ROI_BOX_HEAD", "ROI_MASK_HEAD"):
        if model[head].POOLER_TYPE == "ROIAlignRotated" and heads != "RROIHeads":
            yield (
                f"MODEL.{head}.POOLER_TYPE is ROIAlignRotated, for rotated boxes, but {heads} has "
                "upright ones."
            )
    if box.USE_FED_LOSS and not box.USE_SIGMOID_CE:
        yield "MODEL.ROI_BOX_HEAD.USE_FED_LOSS needs MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE True."
    if heads in ("StandardROIHeads", "CascadeROIHeads"):
        if not box.NAME:
            yield (
                f"MODEL.ROI_BOX_HEAD.NAME is empty, but {heads} needs one, such as "
                "FastRCNNConvFCHead."
            )
        if box.NAME == "FastRCNNConvFCHead" and not box.NUM_FC + box.NUM_CONV:
            yield (
                "MODEL.ROI_BOX_HEAD.NUM_FC and NUM_CONV are 0, but FastRCNNConvFCHead needs a "
                "layer: set NUM_FC 2."
            )
    if heads == "CascadeROIHeads":
        cascade = model.ROI_BOX_CASCADE_HEAD
        if not box.CLS_AGNOSTIC_BBOX_REG:
            yield (
                "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG is False, but CascadeROIHeads needs it "
                "True."
            )
        if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS):
            yield (
                f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS has {len(cascade.IOUS)} stages and "
                f"BBOX_REG_WEIGHTS has {len(cascade.BBOX_REG_WEIGHTS)}; they must have the same "
                "number."
            )


def _expected_results(cfg: CfgNode) -> Iterator[str]:
    for row in cfg.TEST.EXPECTED_RESULTS:
        if not (
            isinstance(row, list | tuple)
            and len(row) == 4
            and number().holds(row[2])
            and number(0).holds(row[3])  # NaN would agree with every result, -1 with none
        ):
            yield (
                f"TEST.EXPECTED_RESULTS has {row!r:.200}, but each entry is [task, metric, value, "
                "tolerance], such as [bbox, AP, 38.5, 0.2]; both numbers are finite, and the "
                "tolerance is 0 or more."
            )
