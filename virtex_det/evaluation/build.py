"""The choice of a dataset's evaluator, by the ``evaluator_type`` of its metadata."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    PascalVOCDetectionEvaluator,
)
from detectron2.utils import comm

from virtex_det.data.classes import is_detector
from virtex_det.data.datasets import load_dataset
from virtex_det.data.datasets.by_name import UNLABELLED, find_source, read_found
from virtex_det.data.datasets.found import coco_content
from virtex_det.data.datasets.voc import annotation_path, check_for_detectron2s_evaluator
from virtex_det.errors import UserError
from virtex_det.evaluation.captions import CaptionEvaluator
from virtex_det.evaluation.classification import ClassificationEvaluator
from virtex_det.evaluation.detection.evaluator import DetectionEvaluator
from virtex_det.evaluation.detection.ground_truth import GroundTruth, read_truth
from virtex_det.evaluation.detection.voc import VOCGroundTruth
from virtex_det.evaluation.pointing import PointingGameEvaluator
from virtex_det.evaluation.reference import LVISEvaluator
from virtex_det.utils import write_atomically

METRICS_LIBRARIES = ("hotcoco", "reference")

# Detectron2's own evaluators: slower, with more memory, and the only ones for keypoints and
# proposals. The numbers are the sigmas of keypoints.
REFERENCE_EVALUATORS: dict[str, Callable[[str, str, Sequence[float]], DatasetEvaluator]] = {
    "coco": lambda dataset, folder, sigmas: COCOEvaluator(
        dataset, output_dir=folder, use_fast_impl=False, kpt_oks_sigmas=tuple(sigmas)
    ),
    "lvis": lambda dataset, folder, sigmas: LVISEvaluator(dataset, output_dir=folder),
    "pascal_voc": lambda dataset, folder, sigmas: PascalVOCDetectionEvaluator(dataset),
}
_OF_PIXELS = (
    "sem_seg",
    "coco_panoptic_seg",
    "ade20k_panoptic_seg",
    "cityscapes_sem_seg",
    "cityscapes_instance",
)


def build_box_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    """Return a detector's evaluator; a model pretrained on box labels has only a loss."""
    if not is_detector(cfg):
        return CaptionEvaluator(cfg, dataset_name, output_folder)
    check_metrics_library(cfg)
    if cfg.TEST.METRICS_LIBRARY == "reference" or cfg.MODEL.KEYPOINT_ON:
        sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS if cfg.MODEL.KEYPOINT_ON else ()
        return build_reference_evaluator(
            dataset_name, output_folder, masks=cfg.MODEL.MASK_ON, sigmas=sigmas
        )
    return DetectionEvaluator(
        dataset_name,
        output_folder,
        extra_max_detections=cfg.TEST.EXTRA_MAX_DETECTIONS,
        boundary_ap=cfg.TEST.BOUNDARY_AP,
    )


def check_metrics_library(cfg: CfgNode) -> None:
    """Refuse an unknown TEST.METRICS_LIBRARY."""
    if cfg.TEST.METRICS_LIBRARY not in METRICS_LIBRARIES:
        raise UserError(
            f"TEST.METRICS_LIBRARY is {cfg.TEST.METRICS_LIBRARY!r}; expected "
            f"{' or '.join(METRICS_LIBRARIES)}."
        )


def build_reference_evaluator(
    dataset_name: str, output_folder: str, masks: bool, sigmas: Sequence[float] = ()
) -> DatasetEvaluator:
    """Check the annotations, then return Detectron2's own evaluator over pycocotools or lvis.

    Without the check, a missing field or an invalid polygon ends in a KeyError, a wrong number or a
    crash.

    Args:
        dataset_name: a registered dataset.
        output_folder: the folder for predictions.
        masks: the model predicts masks.
        sigmas: of its keypoints, as TEST.KEYPOINT_OKS_SIGMAS; empty for COCO's 17.
    """
    truth = read_truth(dataset_name, output_folder)
    if masks and isinstance(truth, GroundTruth):
        truth.check_masks()
    if isinstance(truth, VOCGroundTruth):
        folder = MetadataCatalog.get(dataset_name).dirname
        for image in truth.images:
            check_for_detectron2s_evaluator(annotation_path(folder, image))
    build = REFERENCE_EVALUATORS[MetadataCatalog.get(dataset_name).evaluator_type]
    if find_source(dataset_name):
        dataset_name = _with_file(dataset_name, Path(output_folder))
    return build(dataset_name, output_folder, sigmas)


def _with_file(dataset_name: str, folder: Path) -> str:
    """Return the name of metadata with a file of the ground truth, which Detectron2 reads.

    The data may be of another form, or have other classes than their file (DATASETS.CLASSES).

    Raises:
        UserError: the data are of VOC's format, which Detectron2 reads in VOC's own folders only.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.evaluator_type == "pascal_voc":
        raise UserError(
            f"TEST.METRICS_LIBRARY is reference, but {dataset_name} is evaluated by hotcoco only.\n"
            "Set TEST.METRICS_LIBRARY hotcoco, or use a registered data set such as voc_2007_test."
        )
    load_dataset(dataset_name)  # sets the classes
    file = folder / "ground_truth.json"
    if comm.is_main_process():
        write_atomically(file, json.dumps(coco_content(read_found(dataset_name))))
    comm.synchronize()
    name = f"{dataset_name} in {file}"
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    kept = {
        key: value for key, value in metadata.as_dict().items() if key not in ("name", "source")
    }
    MetadataCatalog.get(name).set(**{**kept, "json_file": str(file)})
    return name


def build_caption_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str
) -> DatasetEvaluator:
    """Return the evaluator of losses and captions, with groundings of the pointing game too."""
    captions = CaptionEvaluator(cfg, dataset_name, output_folder)
    if not MetadataCatalog.get(dataset_name).get("instances_json"):
        return captions
    return DatasetEvaluators([captions, PointingGameEvaluator(cfg, dataset_name)])


EVALUATORS: dict[str, Callable[[CfgNode, str, str], DatasetEvaluator]] = {
    **dict.fromkeys(REFERENCE_EVALUATORS, build_box_evaluator),
    "captions": build_caption_evaluator,
    "classification": lambda cfg, dataset, folder: ClassificationEvaluator(dataset, folder),
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    """Return the evaluator that a dataset's metadata names.

    Args:
        cfg: the run's config.
        dataset_name: a registered dataset.
        output_folder: folder for predictions.

    Raises:
        UserError: the dataset names no evaluator, or an unknown one. Detectron2 would run the whole
            inference and return nothing.
    """
    return EVALUATORS[evaluator_kind(dataset_name)](cfg, dataset_name, output_folder)


def evaluator_kind(dataset_name: str) -> str:
    """Return the key in EVALUATORS that a dataset's metadata names.

    Raises:
        UserError: the dataset names no evaluator, or an unknown one.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind == UNLABELLED:
        raise UserError(
            f"The dataset {dataset_name} is images without labels: there is nothing to measure.\n"
            "To find objects in them use: python tools/predict.py --run RUN FOLDER"
        )
    if kind in _OF_PIXELS:
        raise UserError(
            f"The dataset {dataset_name} has evaluator_type {kind!r}, and neither semantic nor "
            f"panoptic segmentation is evaluated here; expected one of: {', '.join(EVALUATORS)}.\n"
            "Set DATASETS.TEST (), or let build_evaluator of a subclass of Trainer return "
            "Detectron2's own evaluator."
        )
    if kind not in EVALUATORS:
        raise UserError(
            f"The dataset {dataset_name} has evaluator_type {kind!r}; expected one of: "
            f"{', '.join(EVALUATORS)}.\n"
            "Set it where the dataset is registered: "
            f'MetadataCatalog.get("{dataset_name}").set(evaluator_type="coco")'
        )
    return kind
