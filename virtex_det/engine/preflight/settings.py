"""Checks that need only the config: schedule, devices, tokenizer, expected results."""

import logging
from collections import Counter
from collections.abc import Sequence
from functools import reduce

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm

from virtex_det.checkpoint.families import entries_of
from virtex_det.config.checks import check_config
from virtex_det.config.mappers import OURS, mapper_name
from virtex_det.data.classes import is_detector
from virtex_det.data.datasets import check_datasets, check_num_classes
from virtex_det.data.tokenizers import is_sentencepiece
from virtex_det.engine.explain import building
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

_CAPTION_TASKS = ("validation", "captions", "pointing")
SENTENCEPIECE_MODELS = (
    "BicaptioningModel",
    "CaptioningModel",
    "LocCaModel",
    "MaskedLanguageModel",
    "TokenClassificationModel",
)


def check_schedule(cfg: CfgNode) -> None:
    """Refuse a warm-up that is not shorter than training, and a training without iterations."""
    warmup, total = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if total < 1:
        raise UserError(
            f"SOLVER.MAX_ITER is {total}: training needs at least one iteration.\n"
            "To evaluate without training use --eval-only."
        )
    if warmup >= total:
        raise UserError(
            f"SOLVER.WARMUP_ITERS is {warmup} and SOLVER.MAX_ITER {total}: warm-up must end before "
            f"training does.\nFor a run this short set SOLVER.WARMUP_ITERS {total // 10}."
        )


def check_data(cfg: CfgNode, names: Sequence[str]) -> None:
    """Refuse unknown data sets, and data sets with another number of classes than the detector."""
    check_datasets(names)
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        for name in names:
            check_num_classes(name, cfg.MODEL.ROI_HEADS.NUM_CLASSES)


def check_tokenizer(cfg: CfgNode) -> None:
    """Refuse BERT's vocabulary for VirTex's tasks, whose special tokens have the ids 0 to 3."""
    model, tokenizer = cfg.MODEL.META_ARCHITECTURE, cfg.INPUT.CAPTION.TOKENIZER
    if model in SENTENCEPIECE_MODELS and not is_sentencepiece(tokenizer):
        raise UserError(
            f"INPUT.CAPTION.TOKENIZER {tokenizer} is not a SentencePiece vocabulary, which {model} "
            "needs.\nSet it to a *.model file; tools/build_vocabulary.py makes one."
        )


def check_settings(cfg: CfgNode, *, trains: bool = True) -> None:
    """Refuse keys that would end a run at its first or its last step.

    This includes the checks of ``load_config``, which a config made in Python has not passed.

    Args:
        cfg: the full config.
        trains: False skips what only a training needs.

    Raises:
        UserError: names the key and what to set.
    """
    check_config(cfg)
    entries_of(cfg.MODEL.WEIGHTS_FORMAT)
    check_devices(cfg)
    check_tokenizer(cfg)
    _check_proposals(cfg)
    _check_rotated_boxes(cfg)
    if not trains:
        return
    if cfg.SOLVER.MAX_ITER < 1:
        check_schedule(cfg)
    with building("schedule", cfg, "SOLVER.LR_SCHEDULER_NAME", "SOLVER.MAX_ITER", "SOLVER.STEPS"):
        build_lr_scheduler(cfg, torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
    _check_expected_results(cfg)


def _check_proposals(cfg: CfgNode) -> None:
    if cfg.MODEL.LOAD_PROPOSALS:
        raise UserError(
            "MODEL.LOAD_PROPOSALS is True: precomputed proposals are not supported.\n"
            "Set it False; the detector then finds its own, with MODEL.PROPOSAL_GENERATOR.NAME RPN."
        )
    architectures = ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork")
    if cfg.MODEL.META_ARCHITECTURE not in architectures or mapper_name(cfg) not in OURS:
        return
    if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
        raise UserError(
            "MODEL.PROPOSAL_GENERATOR.NAME is PrecomputedProposals, which is not supported.\n"
            "Set it to RPN; the detector then finds its own proposals."
        )


def _check_rotated_boxes(cfg: CfgNode) -> None:
    """Refuse detectors of rotated boxes without Detectron2's compiled part or without a mapper."""
    keys = {"MODEL.PROPOSAL_GENERATOR.NAME": "RRPN", "MODEL.ROI_HEADS.NAME": "RROIHeads"}
    found = [
        f"{key} {name}"
        for key, name in keys.items()
        if reduce(getattr, key.split("."), cfg) == name
    ]
    if cfg.MODEL.META_ARCHITECTURE not in ("GeneralizedRCNN", "ProposalNetwork") or not found:
        return
    if not hasattr(torch.ops.detectron2, "box_iou_rotated"):
        raise UserError(
            f"{' and '.join(found)}: rotated boxes need Detectron2's compiled part, which this "
            "installation lacks.\n"
            "Build Detectron2 from source (docs/install.md), or set MODEL.PROPOSAL_GENERATOR.NAME "
            "RPN and MODEL.ROI_HEADS.NAME StandardROIHeads."
        )
    if mapper_name(cfg) in OURS:
        raise UserError(
            f"{' and '.join(found)}: the mapper {mapper_name(cfg)} makes boxes without angles.\n"
            "Register a mapper that makes RotatedBoxes (detectron2.data.detection_utils."
            "annotations_to_instances_rotated) and name it in DATALOADER.MAPPER, or set "
            "MODEL.PROPOSAL_GENERATOR.NAME RPN and MODEL.ROI_HEADS.NAME StandardROIHeads."
        )


def check_names(cfg: CfgNode) -> None:
    """Refuse repeated names in DATASETS.TEST; warn of repeats in TRAIN and of names in both."""
    repeated = [name for name, count in Counter(cfg.DATASETS.TEST).items() if count > 1]
    if repeated:
        raise UserError(
            f"DATASETS.TEST names {repeated[0]} twice, but results are kept by name.\nName it once."
        )
    for name, count in Counter(cfg.DATASETS.TRAIN).items():
        if count > 1:
            logger.warning(
                "DATASETS.TRAIN names %s %d times: each of its images counts %d times",
                name,
                count,
                count,
            )
        if name in cfg.DATASETS.TEST:
            logger.warning(
                "DATASETS.TRAIN and DATASETS.TEST both name %s: the model is tested on images that "
                "it was trained on",
                name,
            )


def check_inference(cfg: CfgNode) -> None:
    """Refuse keys that an evaluation does not support."""
    if cfg.TEST.AUG.ENABLED:
        raise UserError(
            "TEST.AUG.ENABLED is True, but an evaluation sees each image once.\n"
            "Set it False. Predictions have test-time augmentation: tools/predict.py --tta. To "
            "measure it, wrap the trained model in "
            "detectron2.modeling.GeneralizedRCNNWithTTA(cfg, model), and evaluate that by "
            "Trainer.test."
        )
    finds_proposals = cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork"
    if finds_proposals and cfg.TEST.METRICS_LIBRARY != "reference" and cfg.DATASETS.TEST:
        raise UserError(
            "MODEL.META_ARCHITECTURE ProposalNetwork finds proposals, which hotcoco does not "
            "evaluate.\nSet TEST.METRICS_LIBRARY reference, or DATASETS.TEST () to train without "
            "an evaluation."
        )


def _check_expected_results(cfg: CfgNode) -> None:
    """Refuse TEST.EXPECTED_RESULTS that the last evaluation cannot be compared with."""
    if cfg.TEST.EXPECTED_RESULTS and len(cfg.DATASETS.TEST) != 1:
        raise UserError(
            f"DATASETS.TEST names {len(cfg.DATASETS.TEST)} data sets, but TEST.EXPECTED_RESULTS "
            "needs one.\nName one data set, or leave TEST.EXPECTED_RESULTS empty."
        )
    tasks = _tasks(cfg)
    for task, *_ in cfg.TEST.EXPECTED_RESULTS:
        if task not in tasks:
            raise UserError(
                f"TEST.EXPECTED_RESULTS names the task {task!r}; the tasks of this model's "
                f"evaluation are: {', '.join(tasks)}."
            )


def _tasks(cfg: CfgNode) -> Sequence[str]:
    if not is_detector(cfg):
        is_classifier = "Classification" in mapper_name(cfg)
        return ("classification", "validation") if is_classifier else _CAPTION_TASKS
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON:
        tasks.append("keypoints")
    return tasks


def check_devices(cfg: CfgNode) -> None:
    """Refuse a norm that PyTorch cannot run: SyncBatchNorm over several processes needs GPUs."""
    nodes = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
    clashing = [f"MODEL.{node}.NORM" for node in nodes if cfg.MODEL[node].NORM == "SyncBN"]
    if cfg.MODEL.DEVICE == "cpu" and comm.get_world_size() > 1 and clashing:
        raise UserError(
            "PyTorch's SyncBatchNorm over several processes needs GPUs, and MODEL.DEVICE is cpu.\n"
            "Run one process, or set " + " ".join(f"{key} naiveSyncBN" for key in clashing)
        )
