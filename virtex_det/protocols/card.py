"""Protocol cards: a config's recipe in words, shown beside its numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from virtex_det.config.data_names import metadata_by_name, short_names
from virtex_det.config.mappers import mapper_name
from virtex_det.protocols.catalog import Protocol
from virtex_det.protocols.matching import nearest_protocol

FROZEN = ("nothing frozen", "stem frozen", *(f"stem to res{stage} frozen" for stage in range(2, 6)))


def protocol_card(cfg: CfgNode, own: tuple[Protocol, ...] = ()) -> dict[str, str]:
    """Describe the recipe of a config; paper and section are those of the nearest protocol.

    Args:
        cfg: the full config.
        own: protocols of the user, beside those of the package.

    Returns:
        Text by heading, in display order; "departs" only if the config differs from the protocol.
    """
    name, protocol, departures = nearest_protocol(cfg, own)
    has_its_data = not {"DATASETS.TRAIN", "DATASETS.TEST"} & departures.keys()
    images = protocol.train_images if protocol and has_its_data else None
    version = protocol.dataset_version if protocol and has_its_data else ""
    is_detector = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    is_trained = not is_svm_probe(cfg)
    card = {
        "protocol": name or "none",
        "detector": f"{_architecture(cfg)}, {_network(cfg)}",
        "heads": _heads(cfg) if is_detector else "",
        "norm": _norm(cfg) if is_trained else "",
        "schedule": _schedule(cfg, images) if is_trained else "",
        "batch": f"{cfg.SOLVER.IMS_PER_BATCH} images" if is_trained else "",
        "learning rate": _learning_rate(cfg) if is_trained else "",
        "sizes": _sizes(cfg),
        "metric": _metrics(cfg, is_detector),
        "data": _data(cfg, version),
        "paper": ": ".join(filter(None, (protocol.paper, protocol.section))) if protocol else "",
        "notes": protocol.notes if protocol else "",
        "departs": ", ".join(f"{key} {value}" for key, value in sorted(departures.items())),
    }
    return {heading: words for heading, words in card.items() if words}


def is_svm_probe(cfg: CfgNode) -> bool:
    """Return whether the config is for SVMs: a classifier evaluated on a dataset with boxes."""
    kinds = {_metadata(dataset).get("evaluator_type") for dataset in cfg.DATASETS.TEST}
    return cfg.MODEL.META_ARCHITECTURE == "ImageClassifier" and "classification" not in kinds


def _architecture(cfg: CfgNode) -> str:
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        return "linear SVMs on frozen features" if is_svm_probe(cfg) else "linear classifier"
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        return cfg.MODEL.META_ARCHITECTURE
    kind = "Mask" if cfg.MODEL.MASK_ON else "Faster"
    return f"{kind} R-CNN {'FPN' if _has_pyramid(cfg) else 'C4'}"


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
    statistics = ""
    if cfg.TEST.PRECISE_BN.ENABLED:
        batches = f"{cfg.TEST.PRECISE_BN.NUM_ITER} batches"
        statistics = f"; statistics renewed over {batches} before evaluation"
    return (
        f"backbone {cfg.MODEL.RESNETS.NORM}{pyramid}; "
        f"{FROZEN[cfg.MODEL.BACKBONE.FREEZE_AT]}{statistics}"
    )


def _schedule(cfg: CfgNode, images: int | None) -> str:
    """Return the schedule; its epochs if the number of images in the training set is known."""
    solver = cfg.SOLVER
    # Detectron2 ignores steps from the last iteration on.
    steps = [f"{step:,}" for step in solver.STEPS if step < solver.MAX_ITER]
    if "Cosine" in solver.LR_SCHEDULER_NAME:
        fall = "cosine"
    elif steps:
        fall = f"rate times {solver.GAMMA:g} at {_listed(steps)}"
    else:
        fall = "constant rate"
    words = [f"{solver.MAX_ITER:,} iterations", fall, f"warm-up over {solver.WARMUP_ITERS:,}"]
    if images:
        seen = solver.MAX_ITER * solver.IMS_PER_BATCH
        epochs = seen / (images * cfg.DATASETS.TRAIN_FRACTION)
        words.insert(1, f"about {epochs:,.0f} epochs")
    return ", ".join(words)


def _learning_rate(cfg: CfgNode) -> str:
    solver, clip = cfg.SOLVER, cfg.SOLVER.CLIP_GRADIENTS
    backbone = solver.BASE_LR * solver.BACKBONE_MULTIPLIER
    momentum = f" with momentum {solver.MOMENTUM:g}" if solver.OPTIMIZER == "SGD" else ""
    words = [
        f"{solver.BASE_LR:g}",
        f"backbone {backbone:g}" if backbone != solver.BASE_LR else "",
        f"{solver.OPTIMIZER}{momentum}",
        f"weight decay {solver.WEIGHT_DECAY:g}, of norms {solver.WEIGHT_DECAY_NORM:g}",
        f"gradients clipped at {clip.CLIP_VALUE:g}" if clip.ENABLED else "",
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
    between = f"{short[0]} px"
    if len(short) > 1:
        between = f"{short[0]} to {short[-1]} px in {len(short)} sizes"
    training = f"training: short side {between}, long side at most {given.MAX_SIZE_TRAIN}"
    return f"{training}; test: {given.MIN_SIZE_TEST}, at most {given.MAX_SIZE_TEST}"


def _metrics(cfg: CfgNode, is_detector: bool) -> str:
    """Return the metrics of the evaluators; "" for datasets that are not registered."""
    of_images = "11-point AP, of images"
    words = {
        "coco": "COCO AP, mean over IoU .50 to .95" if is_detector else of_images,
        "lvis": "LVIS AP, mean over IoU .50 to .95; APr, APc, APf" if is_detector else of_images,
        "classification": "top-1 accuracy",
        "captions": "losses and caption metrics",
    }
    found = []
    for dataset in cfg.DATASETS.TEST:
        metadata = _metadata(dataset)
        kind = metadata.get("evaluator_type", "")
        if kind == "pascal_voc":
            curve = "11-point" if metadata.get("year") == 2007 else "area under the curve"
            of = ", mean over IoU .50 to .95; not COCO's AP" if is_detector else ", of images"
            found.append(f"VOC AP, {curve}{of}")
        else:
            found.append(words.get(kind, ""))
    return "; ".join(dict.fromkeys(found))


def _metadata(dataset: str) -> Mapping[str, Any]:
    """Return what is known of a data set before it is loaded; nothing if it is not registered."""
    if dataset in MetadataCatalog.list():
        return MetadataCatalog.get(dataset).as_dict()
    return metadata_by_name(dataset)


def _data(cfg: CfgNode, version: str) -> str:
    train, test = (
        _listed(list(short_names(names).values())) or "none"
        for names in (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    )
    names = f"{train} / {test}"
    part = cfg.DATASETS.TRAIN_FRACTION
    known = f": {version}" if version else ""
    return f"{names}{known}" + (f"; {part:.4g} of the training images" if part < 1 else "")


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
