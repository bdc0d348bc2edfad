"""The main config keys and their meanings, for a command's ``-h``."""

import inspect
import re
import textwrap

from virtex_det.config import defaults

# Detectron2's keys; its defaults.py does not explain all of them.
_DETECTRON2 = {
    "MODEL.WEIGHTS": "file, address or virtex:// name of the weights to start from or to evaluate; "
    "empty: random init",
    "DATASETS.TRAIN, TEST": "names of data sets: coco_2017_train, yolo:data.yaml:train ...",
    "SOLVER.IMS_PER_BATCH": "images per step, of all processes together",
    "SOLVER.BASE_LR": "learning rate for IMS_PER_BATCH; half the batch needs half the rate",
    "SOLVER.MAX_ITER": "steps of training; change SOLVER.STEPS and WARMUP_ITERS with it",
    "SOLVER.AMP.ENABLED": "mixed precision, bf16 on CPUs; the log says what it does",
    "MODEL.ROI_HEADS.NUM_CLASSES": "number of classes of the detector; 0: that of the data",
    "INPUT.MASK_FORMAT": "polygon or bitmask (run-length encoded)",
    "TEST.EVAL_PERIOD": "steps between evaluations; 0: only at the end",
    "SOLVER.CHECKPOINT_PERIOD": "steps between checkpoints",
    "SEED": "seed of everything random; -1: a different one each time",
    "OUTPUT_DIR": "folder of the run",
}
# The meanings of virtex_det's keys are the comments above them in defaults.py.
_OURS = (
    "MODEL.FOLLOW_WEIGHTS",
    "MODEL.WEIGHTS_FORMAT",
    "MODEL.ALLOW_PARTIAL_WEIGHTS",
    "SOLVER.AMP.DTYPE",
    "DATASETS.CLASSES",
    "DATASETS.TRAIN_FRACTION",
    "DATASETS.SUBSET_SEED",
    "DATASETS.SUBSET_FILE",
    "DATALOADER.MAPPER",
    "SOLVER.OPTIMIZER",
    "SOLVER.BACKBONE_MULTIPLIER",
    "SOLVER.NO_DECAY",
    "SOLVER.REFERENCE_FRACTION",
    "INPUT.CAPTION.TOKENIZER",
    "INPUT.FAST_RESIZE",
    "TEST.METRICS_LIBRARY",
)
_WIDTH = 118


def key_help() -> str:
    """Return the main keys of a config with their meanings, a few lines for each."""
    comments = key_comments()
    ours = {key: comments[key] for key in _OURS}
    return (
        "KEY VALUE pairs override the config file. The main keys of Detectron2:\n"
        + "\n".join(_entry(key, meaning) for key, meaning in _DETECTRON2.items())
        + "\n\nThe main keys of virtex_det:\n"
        + "\n".join(_entry(key, meaning) for key, meaning in ours.items())
        + "\n\nAll keys of virtex_det: virtex_det/config/defaults.py\n"
        "All keys of Detectron2: "
        "https://detectron2.readthedocs.io/en/latest/modules/config.html#config-references"
    )


def key_comments() -> dict[str, str]:
    """Return the first sentence of the comment above each key in defaults.py."""
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in inspect.getsource(defaults).splitlines():
        if match := re.match(r"    # (.+)", line):
            comment.append(match[1])
            continue
        if match := re.match(r"    cfg\.([\w.]+) = ", line):
            found[match[1]] = _first_sentence(" ".join(comment))
        comment = []
    return found


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[a-z)\"])\. (?=[A-Z\"])", text)[0].removesuffix(".")


def _entry(key: str, meaning: str) -> str:
    lines = textwrap.wrap(meaning, _WIDTH - 32)
    return f"  {key:29} " + f"\n{'':32}".join(lines)
