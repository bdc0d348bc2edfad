"""Protocol cards: a config's recipe in words, shown beside its numbers."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.config.mappers import mapper_name
from virtex_det.protocols.catalog import Protocol
from virtex_det.protocols.matching import nearest_protocol, protocol_id

FROZEN = ("nothing frozen", "stem frozen", *(f"stem to res{stage} frozen" for stage in range(2, 6)))


def protocol_card(cfg: CfgNode) -> dict[str, str]:
    """Describe the recipe of a config; paper and section are those of the nearest protocol.

    Args:
        cfg: the full config.

    Returns:
        Text by heading, in display order; "departs" only if the config differs from the protocol.
    """
    protocol, departures = nearest_protocol(cfg)
    is_detector = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    is_trained = not _is_svm_probe(cfg)
    card = {
        "protocol": protocol_id(cfg) or "none",
        "detector": f"{_architecture(cfg)}, {_network(cfg)}",
        "heads": _heads(cfg) if is_detector else "",
        "norm": _norm(cfg) if is_trained else "",
        "schedule": _schedule(cfg, protocol) if is_trained else "",
        "batch": f"{cfg.SOLVER.IMS_PER_BATCH} images" if is_trained else "",
        "learning rate": _learning_rate(cfg) if is_trained else "",
        "sizes": _sizes(cfg),
        "metric": "; ".join(
            dict.fromkeys(_metric(dataset, is_detector) for dataset in cfg.DATASETS.TEST)
        ),
        "data": _data(cfg, protocol),
        "paper": ": ".join(filter(None, (protocol.paper, protocol.section))) if protocol else "",
        "notes": protocol.notes if protocol else "",
        "departs": ", ".join(f"{key} {value}" for key, value in sorted(departures.items())),
    }
    return {heading: words for heading, words in card.items() if words}


def _architecture(cfg: CfgNode) -> str:
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        known = {
            "ImageClassifier": "linear SVMs on frozen features"
            if _is_svm_probe(cfg)
            else "linear classifier"
        }
        return known.get(cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.META_ARCHITECTURE)
    return (
        f"{'Mask' if cfg.MODEL.MASK_ON else 'Faster'} R-CNN {'FPN' if _has_pyramid(cfg) else 'C4'}"
    )


def _is_svm_probe(cfg: CfgNode) -> bool:
    """Return whether the config is for SVMs: a classifier evaluated on a dataset with boxes."""
    kinds = {_evaluator_type(dataset) for dataset in cfg.DATASETS.TEST}
    return cfg.MODEL.META_ARCHITECTURE == "ImageClassifier" and "classification" not in kinds


def _has_pyramid(cfg: CfgNode) -> bool:
    return "fpn" in cfg.MODEL.BACKBONE.NAME


def _network(cfg: CfgNode) -> str:
    resnet, variety = cfg.MODEL.RESNETS, cfg.MODEL.CAPTION_RESNET
    blocks = "-".join(map(str, variety.BLOCKS))
    width = 64 if resnet.DEPTH < 50 else 256
    words = [
        f"ResNet of {blocks} blocks" if blocks else f"ResNet-{resnet.DEPTH}",
        f"{resnet.NUM_GROUPS} groups" if resnet.NUM_GROUPS > 1 else "",
        f"{resnet.WIDTH_PER_GROUP} channels per group" if resnet.WIDTH_PER_GROUP != 64 else "",
        f"{resnet.RES2_OUT_CHANNELS} channels in res2" if resnet.RES2_OUT_CHANNELS != width else "",
        f"{variety.STEM} stem" if variety.STEM != "basic" else "",
        f"{variety.DOWNSAMPLE} downsampling" if variety.DOWNSAMPLE != "conv" else "",
        "stride in the 1x1 convolution" if resnet.STRIDE_IN_1X1 else "",
    ]
    return ", ".join(filter(None, words))


def _heads(cfg: CfgNode) -> str:
    if not _has_pyramid(cfg):
        extra = ", one more norm after it" if "ExtraNorm" in cfg.MODEL.ROI_HEADS.NAME else ""
        return f"res5{extra}"
    box, mask = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    convolutions = f"{box.NUM_CONV} conv, " if box.NUM_CONV else ""
    words = [f"box {convolutions}{box.NUM_FC} fc, norm {box.NORM or 'none'}"]
    if cfg.MODEL.MASK_ON:
        words.append(f"mask {mask.NUM_CONV} conv, norm {mask.NORM or 'none'}")
    return "; ".join(words)


def _norm(cfg: CfgNode) -> str:
    pyramid = f", FPN {cfg.MODEL.FPN.NORM or 'none'}" if _has_pyramid(cfg) else ""
    precise = cfg.TEST.PRECISE_BN
    statistics = (
        f"; statistics renewed over {precise.NUM_ITER} batches before evaluation"
        if precise.ENABLED
        else ""
    )
    return (
        f"backbone {cfg.MODEL.RESNETS.NORM}{pyramid}; "
        f"{FROZEN[cfg.MODEL.BACKBONE.FREEZE_AT]}{statistics}"
    )


def _schedule(cfg: CfgNode, protocol: Protocol | None) -> str:
    solver = cfg.SOLVER
    if "Cosine" in solver.LR_SCHEDULER_NAME:
        fall = "cosine"
    else:
        # Detectron2 ignores steps from the last iteration on.
        steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
        fall = (
            f"rate times {solver.GAMMA:g} at {_listed([f'{step:,}' for step in steps])}"
            if steps
            else "constant rate"
        )
    words = [f"{solver.MAX_ITER:,} iterations", fall, f"warm-up over {solver.WARMUP_ITERS:,}"]
    if protocol and protocol.train_images and _is_data_of(cfg, protocol):
        epochs = (
            solver.MAX_ITER
            * solver.IMS_PER_BATCH
            / (protocol.train_images * cfg.DATASETS.TRAIN_FRACTION)
        )
        words.insert(1, f"about {epochs:,.0f} epochs")
    return ", ".join(words)


def _learning_rate(cfg: CfgNode) -> str:
    solver = cfg.SOLVER
    backbone = solver.BASE_LR * solver.BACKBONE_MULTIPLIER
    words = [
        f"{solver.BASE_LR:g}",
        f"backbone {backbone:g}" if backbone != solver.BASE_LR else "",
        solver.OPTIMIZER
        + (f" with momentum {solver.MOMENTUM:g}" if solver.OPTIMIZER == "SGD" else ""),
        f"weight decay {solver.WEIGHT_DECAY:g}, of norms {solver.WEIGHT_DECAY_NORM:g}",
        f"gradients clipped at {solver.CLIP_GRADIENTS.CLIP_VALUE:g}"
        if solver.CLIP_GRADIENTS.ENABLED
        else "",
        "LookAhead" if solver.LOOKAHEAD.ENABLED else "",
        "mixed precision" if solver.AMP.ENABLED else "",
    ]
    return ", ".join(filter(None, words))


def _sizes(cfg: CfgNode) -> str:
    if mapper_name(cfg) == "ClassificationMapper":
        crop = cfg.INPUT.CLASSIFICATION
        return f"crops of {crop.CROP_SIZE} px, in testing from images of {crop.RESIZE} px"
    if mapper_name(cfg) != "DetectionMapper":
        return f"crops of {cfg.INPUT.CAPTION.CROP_SIZE} px"
    given = cfg.INPUT
    short = sorted(given.MIN_SIZE_TRAIN)
    between = (
        f"{short[0]} to {short[-1]} px in {len(short)} sizes"
        if len(short) > 1
        else f"{short[0]} px"
    )
    training = f"training: short side {between}, long side at most {given.MAX_SIZE_TRAIN}"
    return f"{training}; test: {given.MIN_SIZE_TEST}, at most {given.MAX_SIZE_TEST}"


def _metric(dataset: str, is_detector: bool) -> str:
    """Return the metric of a dataset's evaluator, "" for a dataset that is not registered."""
    kind = _evaluator_type(dataset)
    if kind == "pascal_voc":
        curve = (
            "11-point"
            if MetadataCatalog.get(dataset).get("year") == 2007
            else "area under the curve"
        )
        return f"VOC AP, {curve}" + (
            ", mean over IoU .50 to .95; not COCO's AP" if is_detector else ", of images"
        )
    of_images = "11-point AP, of images"
    words = {
        "coco": "COCO AP, mean over IoU .50 to .95" if is_detector else of_images,
        "lvis": "LVIS AP, mean over IoU .50 to .95; APr, APc, APf" if is_detector else of_images,
        "classification": "top-1 accuracy",
        "captions": "losses and caption metrics",
    }
    return words.get(kind, "")


def _evaluator_type(dataset: str) -> str:
    return (
        MetadataCatalog.get(dataset).get("evaluator_type", "")
        if dataset in MetadataCatalog.list()
        else ""
    )


def _data(cfg: CfgNode, protocol: Protocol | None) -> str:
    names = f"{_listed(cfg.DATASETS.TRAIN) or 'none'} / {_listed(cfg.DATASETS.TEST) or 'none'}"
    known = f": {protocol.dataset_version}" if protocol and _is_data_of(cfg, protocol) else ""
    part = cfg.DATASETS.TRAIN_FRACTION
    return f"{names}{known}" + (f"; {part:.4g} of the training images" if part < 1 else "")


def _is_data_of(cfg: CfgNode, protocol: Protocol) -> bool:
    """Return whether a config has the datasets of this protocol, its nearest one."""
    return not {"DATASETS.TRAIN", "DATASETS.TEST"} & nearest_protocol(cfg)[1].keys()


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
