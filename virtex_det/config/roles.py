"""The role of each config key: part of the recipe, the start, the evaluation, or the machine.

Resuming a run, protocol ids, matrices of runs and run folders read it from this table.
"""

from collections.abc import Callable
from enum import Enum
from functools import cache

from detectron2.config import CfgNode

from virtex_det.config.added import cached
from virtex_det.config.defaults import get_cfg
from virtex_det.config.mappers import OURS, mapper_name
from virtex_det.config.nodes import leaves


class Role(Enum):
    """What a key decides, which also says whether a resumed run may change it."""

    KIND = "inputs and targets of the model: in the protocol's id; refused on resume"
    RECIPE = "how the model is trained: in the protocol's id; refused on resume"
    RUN = "the run of a protocol (seed, weights, part of the data): refused on resume"
    START = "reading of the weights, and their pixel format, which they may set: refused on resume"
    SCHEDULE = "length of training: in the protocol's id; applied on resume, which records mention"
    EVALUATION = "how a model is evaluated: in the protocol's id; applied on resume"
    REPORT = "extra metrics and times of evaluation: applied on resume"
    FILE = "a file that the run copies, or a value from it: compared by content, not by path"
    MACHINE = "where and how fast the run computes: results are equal up to rounding"


# Key -> name of the copy in the run folder, for the files that a run reads besides its data.
FILES = {
    "INPUT.CAPTION.TOKENIZER": "vocabulary.model",
    "INPUT.CAPTION.CONCEPTS": "concepts.json",
    "INPUT.CAPTION.CLUSTERS": "clusters.json",
}

# The longest dotted prefix of a key decides. Entries of whole sections are for Detectron2's keys;
# each key that virtex_det adds has its own entry, or its node has one.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("MODEL", "INPUT", "DATASETS", "DATALOADER", "SOLVER"), Role.RECIPE),
    # The kind of model and of examples.
    **dict.fromkeys(("MODEL.META_ARCHITECTURE", "DATALOADER.MAPPER"), Role.KIND),
    # The recipe's keys that virtex_det adds.
    **dict.fromkeys(("MODEL.CAPTION_RESNET", "MODEL.CLASSIFIER"), Role.RECIPE),
    **dict.fromkeys(("MODEL.TEXTUAL", "MODEL.TEXT_ENCODER"), Role.RECIPE),
    **dict.fromkeys(("MODEL.ICMLM", "MODEL.TAG_PREDICTION", "MODEL.LOCTEX"), Role.RECIPE),
    "MODEL.TOKEN_CLASSIFICATION": Role.RECIPE,
    **dict.fromkeys(("DATASETS.CAPTIONS_PER_IMAGE", "DATASETS.MAX_MISSING_FILES"), Role.RECIPE),
    "DATASETS.CLASSES": Role.RECIPE,
    **dict.fromkeys(("INPUT.FAST_RESIZE", "INPUT.MAX_VALUE"), Role.RECIPE),
    **dict.fromkeys(("INPUT.CAPTION", "INPUT.CLASSIFICATION"), Role.RECIPE),
    "DATALOADER.SHARD_SHUFFLE_SIZE": Role.RECIPE,
    **dict.fromkeys(("SOLVER.OPTIMIZER", "SOLVER.NO_DECAY", "SOLVER.LOOKAHEAD"), Role.RECIPE),
    **dict.fromkeys(("SOLVER.BACKBONE_MULTIPLIER", "SOLVER.AMP.DTYPE"), Role.RECIPE),
    "TEST.PRECISE_BN": Role.RECIPE,  # its averages are in the checkpoint
    # The run and its start.
    **dict.fromkeys(("SEED", "MODEL.WEIGHTS"), Role.RUN),
    **dict.fromkeys(("DATASETS.TRAIN_FRACTION", "DATASETS.SUBSET_SEED"), Role.RUN),
    **dict.fromkeys(("DATASETS.SUBSET_STRATIFIED", "DATASETS.SUBSET_FILE"), Role.RUN),
    "SOLVER.REFERENCE_FRACTION": Role.RUN,
    **dict.fromkeys(("MODEL.WEIGHTS_FORMAT", "MODEL.WEIGHTS_PREFIX"), Role.START),
    **dict.fromkeys(("MODEL.FOLLOW_WEIGHTS", "MODEL.ALLOW_PARTIAL_WEIGHTS"), Role.START),
    **dict.fromkeys(("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"), Role.START),
    **dict.fromkeys(("SOLVER.MAX_ITER", "SOLVER.STEPS"), Role.SCHEDULE),
    # Evaluation.
    "TEST": Role.EVALUATION,
    **dict.fromkeys(("DATASETS.TEST", "DATASETS.PROPOSAL_FILES_TEST"), Role.EVALUATION),
    **dict.fromkeys(
        ("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "DATALOADER.TEST_BATCH_SIZE"), Role.EVALUATION
    ),
    **dict.fromkeys(
        ("MODEL.RPN.PRE_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TEST"), Role.EVALUATION
    ),
    **dict.fromkeys(
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.NMS_THRESH_TEST"), Role.EVALUATION
    ),
    **dict.fromkeys(
        ("MODEL.RETINANET.SCORE_THRESH_TEST", "MODEL.RETINANET.NMS_THRESH_TEST"), Role.EVALUATION
    ),
    **dict.fromkeys(
        ("MODEL.RETINANET.TOPK_CANDIDATES_TEST", "MODEL.PANOPTIC_FPN.COMBINE"), Role.EVALUATION
    ),
    **dict.fromkeys(("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"), Role.EVALUATION),
    **dict.fromkeys(("INPUT.CLASSIFICATION.RESIZE", "MODEL.TEXTUAL.DECODING"), Role.EVALUATION),
    **dict.fromkeys(
        ("TEST.EVAL_PERIOD", "TEST.METRICS_LIBRARY", "TEST.EXTRA_MAX_DETECTIONS"), Role.REPORT
    ),
    **dict.fromkeys(("TEST.BOUNDARY_AP", "TEST.EXPECTED_RESULTS"), Role.REPORT),
    # Files and the machine.
    **dict.fromkeys(FILES, Role.FILE),
    "MODEL.TEXTUAL.VOCAB_SIZE": Role.FILE,  # the tokenizer's
    **dict.fromkeys(
        ("OUTPUT_DIR", "VERSION", "VIS_PERIOD", "CUDNN_BENCHMARK", "GLOBAL"), Role.MACHINE
    ),
    **dict.fromkeys(
        ("MODEL.DEVICE", "MODEL.GATHER_ROI_ALIGN", "DATALOADER.NUM_WORKERS"), Role.MACHINE
    ),
    **dict.fromkeys(("SOLVER.CHECKPOINT_PERIOD", "SOLVER.CHECKPOINT_ON_SIGNAL"), Role.MACHINE),
    **dict.fromkeys(("SOLVER.REFERENCE_WORLD_SIZE", "SOLVER.PROCESS_TIMEOUT"), Role.MACHINE),
}

IN_PROTOCOL = (Role.KIND, Role.RECIPE, Role.SCHEDULE, Role.EVALUATION, Role.FILE)
FIXED = (Role.KIND, Role.RECIPE, Role.RUN, Role.START)  # refused on resume
# Roles of the keys that are equal in all runs of one cell.
IN_CELL = (Role.KIND, Role.RECIPE, Role.RUN, Role.SCHEDULE, Role.EVALUATION)

# Keys that a matrix sets for each run -> the property of the run that they come from.
OF_MATRIX = {
    "MODEL.WEIGHTS": "start",
    "DATASETS.TRAIN_FRACTION": "fraction",
    "DATASETS.SUBSET_SEED": "seed",
    "SEED": "seed",
    "OUTPUT_DIR": "folder",
}

_DETECTORS = (
    "GeneralizedRCNN",
    "ProposalNetwork",
    "RetinaNet",
    "FCOS",
    "PanopticFPN",
    "SemanticSegmentor",
)
_NO_CAPTIONS = ("DetectionMapper", "ClassificationMapper")
_NO_TOKENS = (*_NO_CAPTIONS, "DatasetMapper", "MultilabelMapper", "ClusterMapper")


def _is_pretraining(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE not in _DETECTORS


def _reads_captions(cfg: CfgNode) -> bool:
    return mapper_name(cfg) not in _NO_CAPTIONS


def reads_tokenizer(cfg: CfgNode) -> bool:
    """Say whether a config's model learns from tokens of captions.

    A model with a mapper of another package does if the config names a tokenizer.
    """
    mapper = mapper_name(cfg)
    is_named = mapper in OURS or cfg.INPUT.CAPTION.TOKENIZER
    return bool(is_named) and mapper not in _NO_TOKENS and _is_pretraining(cfg)


# By prefix: whether a config's model and data read the keys below it. All other keys are read.
_READ_IF: dict[str, Callable[[CfgNode], bool]] = {
    **dict.fromkeys(
        ("MODEL.TEXTUAL", "MODEL.TEXT_ENCODER", "MODEL.ICMLM", "MODEL.TAG_PREDICTION"),
        _is_pretraining,
    ),
    **dict.fromkeys(
        ("MODEL.LOCTEX", "MODEL.TOKEN_CLASSIFICATION", "MODEL.CLASSIFIER"), _is_pretraining
    ),
    **dict.fromkeys(
        ("INPUT.CAPTION", "DATASETS.CAPTIONS_PER_IMAGE", "DATASETS.MAX_MISSING_FILES"),
        _reads_captions,
    ),
    "DATALOADER.SHARD_SHUFFLE_SIZE": _reads_captions,
    "INPUT.CLASSIFICATION": lambda cfg: mapper_name(cfg) == "ClassificationMapper",
    "MODEL.RETINANET": lambda cfg: cfg.MODEL.META_ARCHITECTURE == "RetinaNet",
    "MODEL.PANOPTIC_FPN": lambda cfg: cfg.MODEL.META_ARCHITECTURE == "PanopticFPN",
    "MODEL.SEM_SEG_HEAD": lambda cfg: (
        cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor")
    ),
    "MODEL.ROI_MASK_HEAD": lambda cfg: cfg.MODEL.MASK_ON,
    "MODEL.ROI_KEYPOINT_HEAD": lambda cfg: cfg.MODEL.KEYPOINT_ON,
    "MODEL.ROI_BOX_CASCADE_HEAD": lambda cfg: cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads",
}


@cached
def role_of(key: str) -> Role:
    """Return the role of a key by its dotted name.

    Raises:
        KeyError: no prefix of the key has a role.
    """
    return ROLES[_longest_prefix(key, tuple(ROLES))]


@cached
def keys_of(*roles: Role) -> tuple[str, ...]:
    """Return the keys with these roles, in the order of a config."""
    return tuple(key for key, _ in leaves(get_cfg()) if role_of(key) in roles)


def is_read(cfg: CfgNode, key: str) -> bool:
    """Say whether the model or data of a config read a key; other keys do not change results."""
    prefix = _longest_prefix(key, tuple(_READ_IF))
    return (not prefix or _READ_IF[prefix](cfg)) and _is_enabled(cfg, key)


def _is_enabled(cfg: CfgNode, key: str) -> bool:
    """Say whether the nodes above a key are enabled, as SOLVER.LOOKAHEAD is by its ENABLED."""
    node, *names = cfg, *key.split(".")
    for name in names[:-1]:
        node = node[name]
        if not node.get("ENABLED", True) and names[-1] != "ENABLED":
            return False
    return True


@cache
def _longest_prefix(key: str, prefixes: tuple[str, ...]) -> str:
    found = [prefix for prefix in prefixes if f"{key}.".startswith(f"{prefix}.")]
    return max(found, key=len, default="")
