"""What can be wrong with a run, found before it begins."""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.utils import comm

from virtex_det.data.datasets import check_datasets, check_num_classes
from virtex_det.data.wordpiece import is_sentencepiece
from virtex_det.errors import UserError

SENTENCEPIECE_MODELS = ("BicaptioningModel", "CaptioningModel", "MaskedLanguageModel", "TokenClassificationModel")


def check_schedule(cfg: CfgNode) -> None:
    """Refuse a warm-up that does not end before training does, as it would fail at the last step, and no training."""
    warmup, total = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_ITER
    if total < 1 or cfg.SOLVER.BASE_LR < 0:
        raise UserError(
            f"SOLVER.MAX_ITER is {total} and SOLVER.BASE_LR {cfg.SOLVER.BASE_LR}: a schedule needs one iteration at "
            "least and a rate that is not negative.\nTo evaluate without training use --eval-only."
        )
    if warmup >= total:
        raise UserError(
            f"SOLVER.WARMUP_ITERS is {warmup} and SOLVER.MAX_ITER {total}: warm-up has to end before training does.\n"
            f"For a run this short set SOLVER.WARMUP_ITERS {total // 10}."
        )


def check_data(cfg: CfgNode, names: Sequence[str]) -> None:
    """Refuse data sets that are not there, and a detector with another number of classes than they have."""
    check_datasets(names)
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        for name in names:
            check_num_classes(name, cfg.MODEL.ROI_HEADS.NUM_CLASSES)


def check_tokenizer(cfg: CfgNode) -> None:
    """Refuse BERT's vocabulary for VirTex's tasks, to which the special tokens are the ids 0 to 3."""
    model, tokenizer = cfg.MODEL.META_ARCHITECTURE, cfg.INPUT.CAPTION.TOKENIZER
    if model in SENTENCEPIECE_MODELS and not is_sentencepiece(tokenizer):
        raise UserError(
            f"{model} reads a SentencePiece vocabulary, and INPUT.CAPTION.TOKENIZER {tokenizer} is none.\n"
            "Set it to a *.model file; tools/build_vocabulary.py makes one."
        )


def check_devices(cfg: CfgNode) -> None:
    """Refuse a norm that PyTorch cannot run: SyncBatchNorm over several processes needs GPUs."""
    nodes = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
    clashing = [f"MODEL.{node}.NORM" for node in nodes if cfg.MODEL[node].NORM == "SyncBN"]
    if cfg.MODEL.DEVICE == "cpu" and comm.get_world_size() > 1 and clashing:
        raise UserError(
            "PyTorch's SyncBatchNorm over several processes needs GPUs, and MODEL.DEVICE is cpu.\n"
            "Run one process, or set " + " ".join(f"{key} naiveSyncBN" for key in clashing)
        )
