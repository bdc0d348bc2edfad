"""What each config key is to a run: part of its recipe, of its start, of its evaluation, or of the machine.

All that treats keys by their meaning asks this table: resuming a run, ids of protocols, matrices of runs, run folders.
"""

from collections.abc import Callable
from enum import Enum
from functools import cache

from detectron2.config import CfgNode

from virtex_det.config.defaults import get_cfg
from virtex_det.config.mappers import OURS, mapper_name
from virtex_det.config.nodes import leaves


class Role(Enum):
    """What a key decides, and so what becomes of a change of it when a run is resumed."""

    KIND = "what is predicted from what, in its protocol's id; refused on resume"
    RECIPE = "what is trained, in its protocol's id; refused on resume"
    RUN = "which run of a protocol: seed, weights and part of the data; refused on resume"
    START = "how weights are read, and the pixels that they bring: the weights may set it; refused on resume"
    SCHEDULE = (
        "how long is trained, in its protocol's id; applied on resume, and the records say where"
    )
    EVALUATION = "how a model is measured, in its protocol's id; applied on resume"
    REPORT = "what is measured besides, and when; applied on resume"
    FILE = "a file that the run keeps a copy of, or what stands in it: its content decides, not its place"
    MACHINE = "where and how fast it runs: results are the same up to rounding"


# Files that a run reads besides its data, by key, with the names of the copies in its folder.
FILES = {
    "INPUT.CAPTION.TOKENIZER": "vocabulary.model",
    "INPUT.CAPTION.CONCEPTS": "concepts.json",
    "INPUT.CAPTION.CLUSTERS": "clusters.json",
}

# The longest dotted prefix of a key decides. Sections hold Detectron2's keys; each of ours has an entry of its own or
# is in a node that has one.
ROLES: dict[str, Role] = {
    **dict.fromkeys(("MODEL", "INPUT", "DATASETS", "DATALOADER", "SOLVER"), Role.RECIPE),
    # The kind of model and of examples.
    **dict.fromkeys(("MODEL.META_ARCHITECTURE", "DATALOADER.MAPPER"), Role.KIND),
    # Our part of the recipe.
    **dict.fromkeys(("MODEL.CAPTION_RESNET", "MODEL.CLASSIFIER"), Role.RECIPE),
    **dict.fromkeys(("MODEL.TEXTUAL", "MODEL.TEXT_ENCODER"), Role.RECIPE),
    **dict.fromkeys(("MODEL.ICMLM", "MODEL.TAG_PREDICTION", "MODEL.LOCTEX"), Role.RECIPE),
    **dict.fromkeys(("DATASETS.CAPTIONS_PER_IMAGE", "DATASETS.MAX_MISSING_FILES"), Role.RECIPE),
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
FIXED = (Role.KIND, Role.RECIPE, Role.RUN, Role.START)  # as long as a run lives
# What two runs of one cell share.
IN_CELL = (Role.KIND, Role.RECIPE, Role.RUN, Role.SCHEDULE, Role.EVALUATION)

# What a matrix sets for each of its runs, and what of the run that comes from.
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
    """Say whether a config's model learns from tokens of captions; one whose mapper is not ours, if it names some."""
    mapper = mapper_name(cfg)
    is_named = mapper in OURS or cfg.INPUT.CAPTION.TOKENIZER
    return bool(is_named) and mapper not in _NO_TOKENS and _is_pretraining(cfg)


# By prefix: whether a config's model and data read the keys below it. Keys that are not here are always read.
_READ_IF: dict[str, Callable[[CfgNode], bool]] = {
    **dict.fromkeys(
        ("MODEL.TEXTUAL", "MODEL.TEXT_ENCODER", "MODEL.ICMLM", "MODEL.TAG_PREDICTION"),
        _is_pretraining,
    ),
    **dict.fromkeys(("MODEL.LOCTEX", "MODEL.CLASSIFIER"), _is_pretraining),
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


@cache
def role_of(key: str) -> Role:
    """Return the role of a key by its dotted name.

    Raises:
        KeyError: no prefix of it has a role.
    """
    return ROLES[_longest_prefix(key, tuple(ROLES))]


def keys_of(*roles: Role) -> tuple[str, ...]:
    """Return the keys of these roles, Detectron2's and ours, in the order of a config."""
    return tuple(key for key, _ in leaves(get_cfg()) if role_of(key) in roles)


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
