"""What each config key is to a run: part of its recipe, of its start, of its evaluation, or of the machine."""

from collections.abc import Callable
from enum import Enum
from functools import cache

from detectron2.config import CfgNode


class Role(Enum):
    """What a key decides, and so what becomes of a change of it when a run is resumed."""

    RECIPE = "what is trained, in its protocol's id; refused on resume"
    RUN = (
        "which run of a protocol: seed, start and part of the data, each with a field of the record; refused on resume"
    )
    SCHEDULE = "how long is trained, in its protocol's id; applied on resume, and the records say where"
    EVALUATION = "how a model is measured, in its protocol's id; applied on resume"
    REPORT = "what is measured besides, and when; applied on resume"
    FILE = "a file that the run keeps a copy of: its content decides, not its place"
    MACHINE = "where and how fast it runs: results are the same up to rounding"


# The longest dotted prefix of a key decides.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("MODEL", "INPUT", "DATASETS", "DATALOADER", "SOLVER"), Role.RECIPE),
    **dict.fromkeys(("SEED", "DATASETS.TRAIN_FRACTION", "DATASETS.SUBSET_SEED"), Role.RUN),
    **dict.fromkeys(("DATASETS.SUBSET_STRATIFIED", "DATASETS.SUBSET_FILE", "SOLVER.REFERENCE_FRACTION"), Role.RUN),
    **dict.fromkeys(("MODEL.WEIGHTS", "MODEL.WEIGHTS_FORMAT", "MODEL.WEIGHTS_PREFIX"), Role.RUN),
    **dict.fromkeys(("MODEL.FOLLOW_WEIGHTS", "MODEL.ALLOW_PARTIAL_WEIGHTS"), Role.RUN),
    **dict.fromkeys(("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"), Role.RUN),
    **dict.fromkeys(("SOLVER.MAX_ITER", "SOLVER.STEPS"), Role.SCHEDULE),
    "TEST": Role.EVALUATION,
    **dict.fromkeys(("DATASETS.TEST", "DATASETS.PROPOSAL_FILES_TEST"), Role.EVALUATION),
    **dict.fromkeys(("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "DATALOADER.TEST_BATCH_SIZE"), Role.EVALUATION),
    **dict.fromkeys(("MODEL.RPN.PRE_NMS_TOPK_TEST", "MODEL.RPN.POST_NMS_TOPK_TEST"), Role.EVALUATION),
    **dict.fromkeys(("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ROI_HEADS.NMS_THRESH_TEST"), Role.EVALUATION),
    **dict.fromkeys(("MODEL.RETINANET.SCORE_THRESH_TEST", "MODEL.RETINANET.NMS_THRESH_TEST"), Role.EVALUATION),
    **dict.fromkeys(("MODEL.RETINANET.TOPK_CANDIDATES_TEST", "MODEL.PANOPTIC_FPN.COMBINE"), Role.EVALUATION),
    **dict.fromkeys(("INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"), Role.EVALUATION),
    **dict.fromkeys(("INPUT.CLASSIFICATION.RESIZE", "MODEL.TEXTUAL.DECODING"), Role.EVALUATION),
    "TEST.PRECISE_BN": Role.RECIPE,  # its averages are in the checkpoint
    **dict.fromkeys(("TEST.EVAL_PERIOD", "TEST.METRICS_LIBRARY", "TEST.EXTRA_MAX_DETECTIONS"), Role.REPORT),
    **dict.fromkeys(("TEST.BOUNDARY_AP", "TEST.EXPECTED_RESULTS"), Role.REPORT),
    **dict.fromkeys(("INPUT.CAPTION.TOKENIZER", "INPUT.CAPTION.CONCEPTS", "INPUT.CAPTION.CLUSTERS"), Role.FILE),
    **dict.fromkeys(("OUTPUT_DIR", "VERSION", "VIS_PERIOD", "CUDNN_BENCHMARK", "GLOBAL"), Role.MACHINE),
    **dict.fromkeys(("MODEL.DEVICE", "MODEL.GATHER_ROI_ALIGN", "DATALOADER.NUM_WORKERS"), Role.MACHINE),
    **dict.fromkeys(("SOLVER.CHECKPOINT_PERIOD", "SOLVER.CHECKPOINT_ON_SIGNAL"), Role.MACHINE),
    **dict.fromkeys(("SOLVER.REFERENCE_WORLD_SIZE", "SOLVER.PROCESS_TIMEOUT"), Role.MACHINE),
}

IN_PROTOCOL = (Role.RECIPE, Role.SCHEDULE, Role.EVALUATION, Role.FILE)
FIXED = (Role.RECIPE, Role.RUN)  # as long as a run lives

_DETECTORS = ("GeneralizedRCNN", "ProposalNetwork", "RetinaNet", "FCOS", "PanopticFPN", "SemanticSegmentor")
_NO_CAPTIONS = ("DetectionMapper", "ClassificationMapper")


def _is_pretraining(cfg: CfgNode) -> bool:
    return cfg.MODEL.META_ARCHITECTURE not in _DETECTORS


def _reads_captions(cfg: CfgNode) -> bool:
    return cfg.DATALOADER.MAPPER not in _NO_CAPTIONS


# By prefix: whether a config's model and data read the keys below it. Keys that are not here are always read.
_READ_IF: dict[str, Callable[[CfgNode], bool]] = {
    **dict.fromkeys(("MODEL.TEXTUAL", "MODEL.TEXT_ENCODER", "MODEL.ICMLM", "MODEL.TAG_PREDICTION"), _is_pretraining),
    **dict.fromkeys(("MODEL.LOCTEX", "MODEL.CLASSIFIER"), _is_pretraining),
    **dict.fromkeys(("INPUT.CAPTION", "DATASETS.CAPTIONS_PER_IMAGE", "DATASETS.MAX_MISSING_FILES"), _reads_captions),
    "DATALOADER.SHARD_SHUFFLE_SIZE": _reads_captions,
    "INPUT.CLASSIFICATION": lambda cfg: cfg.DATALOADER.MAPPER == "ClassificationMapper",
    "MODEL.RETINANET": lambda cfg: cfg.MODEL.META_ARCHITECTURE == "RetinaNet",
    "MODEL.PANOPTIC_FPN": lambda cfg: cfg.MODEL.META_ARCHITECTURE == "PanopticFPN",
    "MODEL.SEM_SEG_HEAD": lambda cfg: cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"),
    "MODEL.ROI_MASK_HEAD": lambda cfg: cfg.MODEL.MASK_ON,
    "MODEL.ROI_KEYPOINT_HEAD": lambda cfg: cfg.MODEL.KEYPOINT_ON,
    "MODEL.ROI_BOX_CASCADE_HEAD": lambda cfg: cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads",
}


@cache
def role_of(key: str) -> Role:
    """Return the role of a key by its dotted name.

    Raises:
        KeyError: no prefix of it has a role.
    """
    return ROLES[_longest_prefix(key, tuple(ROLES))]


def is_read(cfg: CfgNode, key: str) -> bool:
    """Say whether anything that a config builds reads a key; one that nothing reads changes no result."""
    prefix = _longest_prefix(key, tuple(_READ_IF))
    return (not prefix or _READ_IF[prefix](cfg)) and _is_enabled(cfg, key)


def _is_enabled(cfg: CfgNode, key: str) -> bool:
    """Say whether the nodes above a key are switched on, as SOLVER.LOOKAHEAD is by its ENABLED."""
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
