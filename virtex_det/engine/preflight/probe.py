"""Checks of the SVM probe before it begins."""

from detectron2.config import CfgNode
from detectron2.utils import comm

from virtex_det.engine.preflight.evaluation import check_test_set
from virtex_det.engine.preflight.settings import check_names
from virtex_det.errors import UserError
from virtex_det.evaluation.probes import check_scikit_learn, read_labels


def check_probe(cfg: CfgNode) -> None:
    """Refuse a config that the SVM probe cannot follow, several processes, or no scikit-learn.

    Raises:
        UserError: says what is wrong, and what to do.
    """
    if cfg.MODEL.META_ARCHITECTURE != "ImageClassifier":
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; the SVM probe needs "
            "ImageClassifier.\nStart from configs/probes/voc07_svm.yaml; MODEL.WEIGHTS may be of "
            "any model."
        )
    train, test = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    if len(train) != 1 or len(test) != 1:
        raise UserError(
            f"DATASETS.TRAIN is {train} and DATASETS.TEST {test}; the SVM probe trains on one data "
            "set and tests on one.\nName one data set in each."
        )
    fraction, subset = cfg.DATASETS.TRAIN_FRACTION, cfg.DATASETS.SUBSET_FILE
    if fraction != 1 or subset:
        raise UserError(
            f"DATASETS.TRAIN_FRACTION is {fraction} and SUBSET_FILE {subset!r}; the SVM probe "
            "trains on all of DATASETS.TRAIN.\n"
            'Set DATASETS.TRAIN_FRACTION 1.0 and DATASETS.SUBSET_FILE "".'
        )
    if comm.get_world_size() > 1:
        raise UserError(
            f"The SVM probe runs in one process, not in {comm.get_world_size()}: each would fit "
            "the SVMs to its own part of the images.\nLeave out --num-gpus and --num-machines."
        )
    check_scikit_learn()


def check_probe_data(cfg: CfgNode) -> None:
    """Check that the pictures of both data sets can be read, and that they have boxes.

    Raises:
        UserError: as ``check_probe``.
    """
    check_names(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        check_test_set(cfg, name, own_evaluator=False)
        read_labels(name)
