"""Rules for the values of config keys, also of Detectron2's, checked before a model is built."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from detectron2 import modeling
from detectron2.config import CfgNode
from detectron2.modeling.roi_heads.keypoint_head import ROI_KEYPOINT_HEAD_REGISTRY

from virtex_det.config.added import cached
from virtex_det.config.contradictions import CHANNELS, LEAST_SIDE, contradictions
from virtex_det.config.data_names import NUMBER_KEYS
from virtex_det.config.defaults import get_cfg
from virtex_det.config.nodes import leaves
from virtex_det.config.precision import DTYPES
from virtex_det.config.renames import OLD_NAMES, advice
from virtex_det.config.rules import (
    LARGEST,
    Rule,
    anything,
    either,
    exactly,
    line,
    number,
    one_of,
    registered,
    regular_expression,
    several,
    switch,
    text,
    whole,
)
from virtex_det.errors import UserError
from virtex_det.yaml_files import shortened

_SHOWN = 8  # faults in one message, which then fits on a screen
# NumPy's seeds have 32 bits, and each process adds its rank.
_LARGEST_SEED = 2**32 - 2**16

SHARE = number(0, 1)
MOST_LAYERS = 1000  # more are a mistake and would take hours to build
WIDTH = whole(1, 2**17)  # channels or features; larger weights fill any memory
# Shorter sides leave the coarser feature maps, of stride 16 and 32, without a full cell.
SIDE = Rule(f"a whole number of pixels from {LEAST_SIDE} on", whole(LEAST_SIDE).holds)
NOT_NEGATIVE = number(0)
POSITIVE = number(above=0)
NORMS = one_of(
    "", "BN", "SyncBN", "FrozenBN", "GN", "LN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N"
)
BOX_LOSSES = one_of("smooth_l1", "giou", "diou", "ciou")

# By dotted name or shell pattern; the first pattern that matches a key decides.
RULES: dict[str, Rule] = {
    "VERSION": exactly(2, "the current version of configs"),
    # Names of what is built.
    "MODEL.META_ARCHITECTURE": registered(lambda: modeling.META_ARCH_REGISTRY),
    "MODEL.BACKBONE.NAME": registered(lambda: modeling.BACKBONE_REGISTRY),
    "MODEL.PROPOSAL_GENERATOR.NAME": registered(
        lambda: modeling.PROPOSAL_GENERATOR_REGISTRY, "PrecomputedProposals"
    ),
    "MODEL.ANCHOR_GENERATOR.NAME": registered(lambda: modeling.ANCHOR_GENERATOR_REGISTRY),
    "MODEL.RPN.HEAD_NAME": registered(lambda: modeling.RPN_HEAD_REGISTRY),
    "MODEL.ROI_HEADS.NAME": registered(lambda: modeling.ROI_HEADS_REGISTRY),
    "MODEL.ROI_BOX_HEAD.NAME": registered(lambda: modeling.ROI_BOX_HEAD_REGISTRY, ""),
    "MODEL.ROI_MASK_HEAD.NAME": registered(lambda: modeling.ROI_MASK_HEAD_REGISTRY),
    "MODEL.ROI_KEYPOINT_HEAD.NAME": registered(lambda: ROI_KEYPOINT_HEAD_REGISTRY),
    "MODEL.SEM_SEG_HEAD.NAME": registered(lambda: modeling.SEM_SEG_HEADS_REGISTRY),
    "MODEL.*.NORM": NORMS,
    "MODEL.*.POOLER_TYPE": one_of("ROIAlign", "ROIAlignV2", "ROIPool", "ROIAlignRotated"),
    "MODEL.*.BBOX_REG_LOSS_TYPE": BOX_LOSSES,
    "MODEL.FPN.FUSE_TYPE": one_of("sum", "avg"),
    "MODEL.CAPTION_RESNET.STEM": one_of("basic", "deep", "clip"),
    "MODEL.CAPTION_RESNET.DOWNSAMPLE": one_of("conv", "avg_shortcut", "clip"),
    "MODEL.ICMLM.HEAD": one_of("tfm", "att_fc"),
    "MODEL.TOKEN_CLASSIFICATION.WEIGHTING": one_of("equal", "rare"),
    "MODEL.TAG_PREDICTION.LOSS": one_of("softmax", "sigmoid"),
    "MODEL.LOCTEX.LOCALIZATION_LOSS": one_of("distance", "cross_entropy"),
    "MODEL.TEXTUAL.DECODING.METHOD": one_of("beam_search", "nucleus_sampling", "none"),
    # Sizes of what is built.
    "MODEL.PIXEL_MEAN": several(number(), 1),
    "MODEL.PIXEL_STD": several(POSITIVE, 1),
    **dict.fromkeys(NUMBER_KEYS.values(), whole(0)),  # 0: that of the data
    "MODEL.*.NUM_CLASSES": whole(1),
    "MODEL.*.IN_FEATURES": several(text()),
    "MODEL.RESNETS.OUT_FEATURES": several(text(), 1),
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": several(switch(), 4, 4),
    "MODEL.RESNETS.*": WIDTH,  # depth, groups, widths, dilation
    "MODEL.CAPTION_RESNET.BLOCKS": several(whole(1, MOST_LAYERS), 0, 4),
    "MODEL.FPN.OUT_CHANNELS": WIDTH,
    "MODEL.ANCHOR_GENERATOR.SIZES": several(several(POSITIVE, 1), 1),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": several(several(POSITIVE, 1), 1),
    "MODEL.ANCHOR_GENERATOR.ANGLES": several(several(number(), 1), 1),
    "MODEL.ANCHOR_GENERATOR.OFFSET": number(0, below=1),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": whole(0),
    "MODEL.*.CONV_DIMS": several(either(WIDTH, exactly(-1, "the number of input channels")), 1),
    "MODEL.*.CONV_DIM": WIDTH,
    "MODEL.*.CONVS_DIM": WIDTH,
    "MODEL.*.FC_DIM": WIDTH,
    "MODEL.*.NUM_FC": whole(0, MOST_LAYERS),
    "MODEL.*.NUM_CONV": whole(0, MOST_LAYERS),
    "MODEL.*.NUM_CONVS": whole(0, MOST_LAYERS),
    "MODEL.*.POOLER_RESOLUTION": whole(1),
    "MODEL.*.POOLER_SAMPLING_RATIO": whole(0, 100),
    "MODEL.*.NUM_KEYPOINTS": whole(1),
    "MODEL.*.MIN_KEYPOINTS_PER_IMAGE": whole(0),
    "MODEL.*.COMMON_STRIDE": whole(1),
    # Training of the detector's parts.
    "MODEL.*.IOU_THRESHOLDS": several(number(high=1, above=0), 1),
    "MODEL.*.IOU_LABELS": several(whole(-1, 1), 2),
    "MODEL.*.IOUS": several(number(high=1, above=0), 1),
    "MODEL.*.BATCH_SIZE_PER_IMAGE": whole(1),
    "MODEL.*.POSITIVE_FRACTION": SHARE,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": several(several(POSITIVE, 4, 4), 1),
    "MODEL.*.BBOX_REG_WEIGHTS": several(POSITIVE, 4, 5),  # five for rotated boxes
    "MODEL.*LOSS_WEIGHT": NOT_NEGATIVE,
    "MODEL.*.SMOOTH_L1_*BETA": NOT_NEGATIVE,
    "MODEL.*.FED_LOSS_NUM_CLASSES": whole(1),
    "MODEL.*.FED_LOSS_FREQ_WEIGHT_POWER": NOT_NEGATIVE,
    "MODEL.RETINANET.PRIOR_PROB": number(above=0, below=1),
    "MODEL.RETINANET.FOCAL_LOSS_GAMMA": NOT_NEGATIVE,
    "MODEL.RETINANET.FOCAL_LOSS_ALPHA": number(high=1),  # negative: no weighting by alpha
    # Inference of the detector's parts.
    "MODEL.*_NMS_TOPK_*": whole(1),
    "MODEL.*.TOPK_CANDIDATES_TEST": whole(1),
    "MODEL.*.NMS_THRESH*": SHARE,
    "MODEL.*.SCORE_THRESH_TEST": SHARE,
    "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": whole(0),
    "MODEL.PANOPTIC_FPN.COMBINE.*_THRESH": SHARE,
    # Text.
    # A vocabulary has four special tokens and at least one piece.
    "MODEL.TEXTUAL.VOCAB_SIZE": either(whole(5), exactly(0, "the tokenizer's size")),
    "MODEL.*.NUM_LAYERS": whole(1, MOST_LAYERS),
    "MODEL.*.HIDDEN_SIZE": WIDTH,
    "MODEL.*.ATTENTION_HEADS": whole(1),
    "MODEL.*.FEEDFORWARD_SIZE": WIDTH,
    "MODEL.*.DROPOUT": number(0, below=1),
    "MODEL.*.INIT_STD": POSITIVE,
    "MODEL.TEXTUAL.PARALLEL_FRACTION": SHARE,
    "MODEL.TEXTUAL.DECODING.BEAM_SIZE": whole(1),
    "MODEL.TEXTUAL.DECODING.NUCLEUS_SIZE": number(high=1, above=0),
    "MODEL.ICMLM.TAG_WEIGHT": NOT_NEGATIVE,
    "MODEL.TAG_PREDICTION.NUM_TAGS": whole(0),
    "MODEL.LOCTEX.EMBED_SIZE": WIDTH,
    "MODEL.LOCTEX.TEMPERATURE": POSITIVE,
    "MODEL.LOCTEX.CONTRASTIVE_LOSS": one_of("infonce", "sigmoid"),
    "MODEL.LOCTEX.LOCALIZATION_WEIGHT": NOT_NEGATIVE,
    "MODEL.LOCTEX.LOCALIZATION_FEATURES": several(text()),
    # Data.
    "DATASETS.CLASSES": several(either(text(), several(line(), 2))),
    "DATASETS.TRAIN": several(text()),
    "DATASETS.TEST": several(text()),
    "DATASETS.PROPOSAL_FILES_*": several(text()),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_*": whole(1),
    "DATASETS.TRAIN_FRACTION": number(high=1, above=0),
    "DATASETS.SUBSET_SEED": whole(-(2**63), 2**63 - 1),
    "DATASETS.CAPTIONS_PER_IMAGE": whole(0),
    "DATASETS.MAX_MISSING_FILES": SHARE,
    "DATALOADER.NUM_WORKERS": whole(0, 1024),
    "DATALOADER.SAMPLER_TRAIN": one_of("TrainingSampler", "RepeatFactorTrainingSampler"),
    "DATALOADER.REPEAT_THRESHOLD": SHARE,
    "DATALOADER.TEST_BATCH_SIZE": whole(1),
    "DATALOADER.SHARD_SHUFFLE_SIZE": whole(1),
    # Images.
    "INPUT.MIN_SIZE_TRAIN": several(SIDE, 1),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": one_of("choice", "range"),
    "INPUT.MAX_SIZE_TRAIN": SIDE,
    "INPUT.MIN_SIZE_TEST": either(SIDE, exactly(0, "images keep their size")),
    "INPUT.MAX_SIZE_TEST": SIDE,
    "INPUT.RANDOM_FLIP": one_of("horizontal", "vertical", "none"),
    "INPUT.FORMAT": one_of(*CHANNELS),
    "INPUT.MAX_VALUE": NOT_NEGATIVE,
    "INPUT.MASK_FORMAT": one_of("polygon", "bitmask"),
    "INPUT.CROP.TYPE": one_of("relative_range", "relative", "absolute", "absolute_range"),
    "INPUT.CROP.SIZE": several(POSITIVE, 2, 2),
    "INPUT.*.CROP_SIZE": SIDE,
    "INPUT.*.CROP_SCALE": several(number(high=1, above=0), 2, 2),
    "INPUT.*.RESIZE": SIDE,
    "INPUT.CAPTION.COLOR_JITTER": several(NOT_NEGATIVE, 4, 4),
    "INPUT.CAPTION.FLIP_WORDS": several(several(text(), 2, 2)),
    "INPUT.CAPTION.CONCEPT_MASKS": whole(0),
    "INPUT.CAPTION.PER_IMAGE": whole(1),
    "INPUT.CAPTION.MAX_LENGTH": whole(3),  # the boundaries and one token
    "INPUT.CAPTION.BOX_BINS": whole(2, 10000),
    "INPUT.CAPTION.MASK_PROPORTION": number(high=1, above=0),
    "INPUT.CAPTION.MASK_PROB": number(high=1, above=0),  # 0 leaves no token to predict
    "INPUT.*_PROB": SHARE,
    # Schedule.
    "SOLVER.OPTIMIZER": one_of("SGD", "AdamW"),
    "SOLVER.LR_SCHEDULER_NAME": one_of(
        "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"
    ),
    "SOLVER.WARMUP_METHOD": one_of("linear", "constant"),
    "SOLVER.BASE_LR*": NOT_NEGATIVE,
    "SOLVER.BACKBONE_MULTIPLIER": NOT_NEGATIVE,
    "SOLVER.AMP.DTYPE": one_of(*DTYPES),
    "SOLVER.MOMENTUM": number(0, below=1),
    "SOLVER.WEIGHT_DECAY_BIAS": either(NOT_NEGATIVE, exactly(None, "the same as WEIGHT_DECAY")),
    "SOLVER.WEIGHT_DECAY*": NOT_NEGATIVE,
    "SOLVER.GAMMA": POSITIVE,
    "SOLVER.MAX_ITER": whole(0),
    "SOLVER.STEPS": several(whole(1)),
    "SOLVER.NUM_DECAYS": whole(0),
    "SOLVER.WARMUP_FACTOR": SHARE,
    "SOLVER.WARMUP_ITERS": whole(0),
    "SOLVER.CHECKPOINT_PERIOD": whole(1),
    "SOLVER.IMS_PER_BATCH": whole(1),
    "SOLVER.REFERENCE_WORLD_SIZE": whole(0),
    "SOLVER.REFERENCE_FRACTION": either(
        number(high=1, above=0), exactly(0.0, "the schedule is not scaled")
    ),
    "SOLVER.BIAS_LR_FACTOR": NOT_NEGATIVE,
    "SOLVER.NO_DECAY": regular_expression(),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": one_of("value", "norm", "full_model"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": POSITIVE,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": number(above=0, infinite=True),
    "SOLVER.PROCESS_TIMEOUT": NOT_NEGATIVE,
    "SOLVER.LOOKAHEAD.STEPS": whole(1),
    "SOLVER.LOOKAHEAD.ALPHA": number(high=1, above=0),
    # Evaluation and the rest.
    "TEST.EXPECTED_RESULTS": several(anything()),
    "TEST.EVAL_PERIOD": whole(0),
    "TEST.METRICS_LIBRARY": one_of("hotcoco", "reference"),
    "TEST.EXTRA_MAX_DETECTIONS": several(whole(1)),
    "TEST.KEYPOINT_OKS_SIGMAS": several(POSITIVE),
    "TEST.DETECTIONS_PER_IMAGE": either(whole(1), exactly(-1, "all")),
    "TEST.AUG.MIN_SIZES": several(SIDE, 1),
    "TEST.AUG.MAX_SIZE": SIDE,
    "TEST.PRECISE_BN.NUM_ITER": whole(1),
    "SEED": Rule(
        f"a whole number up to {_LARGEST_SEED}; -1 draws a seed",
        whole(-(2**63), _LARGEST_SEED).holds,
    ),
    "VIS_PERIOD": whole(0),
    "OUTPUT_DIR": Rule(
        "the name of a folder, not an address",
        lambda name: line().holds(name) and "://" not in name,
    ),
}


def check_config(cfg: CfgNode) -> None:
    """Refuse a config with invalid or contradictory values.

    Args:
        cfg: a config with the keys of Detectron2 and of virtex_det.

    Raises:
        UserError: names each such key, its value, the expected values, and its default or the
            nearest names.
    """
    faults = (
        [*_old_names(cfg), *_missing_keys(cfg)] or [*_wrong_values(cfg)] or [*contradictions(cfg)]
    )
    if faults:
        more = f"\n... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise UserError("\n".join(faults[:_SHOWN]) + more)


@cached
def _defaults() -> dict[str, Any]:
    return dict(leaves(get_cfg()))


def _old_names(cfg: CfgNode) -> Iterator[str]:
    for key, _ in leaves(cfg):
        if key in OLD_NAMES:
            yield advice(key)


def _missing_keys(cfg: CfgNode) -> Iterator[str]:
    there = {key for key, _ in leaves(cfg)}
    for key in _defaults():
        if key not in there:
            yield (
                f"The config has no {key}: its whole section was set to one value. Set the keys "
                "of the section."
            )


def _wrong_values(cfg: CfgNode) -> Iterator[str]:
    defaults = _defaults()
    for key, value in leaves(cfg):
        default = defaults.get(key)
        rule = _rule_of(key, default)
        if not rule.holds(value):
            nearest = rule.nearest(value)
            hint = (
                f"The nearest: {', '.join(nearest)}." if nearest else f"The default is {default!r}."
            )
            yield f"{key} is {shortened(value)}, but must be {rule.expected}. {hint}"


def _rule_of(key: str, default: Any) -> Rule:
    if isinstance(default, bool):
        return switch()
    for pattern, rule in RULES.items():
        if fnmatchcase(key, pattern):
            return rule
    return _rule_by_type(default)


def _rule_by_type(default: Any) -> Rule:
    """Return the rule for a key that RULES lacks, by the type of its default.

    Keys that other packages added may have any value.
    """
    if isinstance(default, int):
        return whole(-LARGEST)
    if isinstance(default, float):
        return number()
    return line() if isinstance(default, str) else anything()
