"""Choosing the evaluator of a dataset by the ``evaluator_type`` of its metadata."""

import json
from collections.abc import Callable
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators, PascalVOCDetectionEvaluator

from virtex_det.errors import UserError
from virtex_det.evaluation.captions import CaptionEvaluator
from virtex_det.evaluation.classification import ClassificationEvaluator
from virtex_det.evaluation.lvis import LVISEvaluator
from virtex_det.evaluation.pointing import PointingGameEvaluator

# What COCO's metrics read of a ground-truth object, and fail on the absence of.
COCO_FIELDS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


def build_coco_evaluator(dataset_name: str, output_folder: str) -> COCOEvaluator:
    """Return Detectron2's COCO evaluator, after a look at whether the annotations are complete."""
    json_file = MetadataCatalog.get(dataset_name).json_file
    for annotation in json.loads(Path(json_file).read_text())["annotations"]:
        absent = [field for field in COCO_FIELDS if field not in annotation]
        if absent:
            raise UserError(
                f"{json_file}: annotation {annotation.get('id')} has no {', '.join(absent)}, which COCO needs.\n"
                "Add what is missing: area in pixels, iscrowd 0 for a single object, ids that are unique and not 0."
            )
    return COCOEvaluator(dataset_name, output_dir=output_folder)


DETECTION_EVALUATORS: dict[str, Callable[[str, str], DatasetEvaluator]] = {
    "coco": build_coco_evaluator,
    "lvis": lambda dataset, folder: LVISEvaluator(dataset, output_dir=folder),
    "pascal_voc": lambda dataset, folder: PascalVOCDetectionEvaluator(dataset),
}


def build_box_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    """Return a detector's evaluator; a model that was pretrained on the labels of boxes has a loss alone."""
    if cfg.DATALOADER.MAPPER != "DetectionMapper":
        return CaptionEvaluator(cfg, dataset_name, output_folder)
    kind = MetadataCatalog.get(dataset_name).evaluator_type
    return DETECTION_EVALUATORS[kind](dataset_name, output_folder)


def build_caption_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    """Return losses and captions' metrics, and where it is known which object a word names, the pointing game."""
    captions = CaptionEvaluator(cfg, dataset_name, output_folder)
    if not MetadataCatalog.get(dataset_name).get("instances_json"):
        return captions
    return DatasetEvaluators([captions, PointingGameEvaluator(cfg, dataset_name)])


EVALUATORS: dict[str, Callable[[CfgNode, str, str], DatasetEvaluator]] = {
    **dict.fromkeys(DETECTION_EVALUATORS, build_box_evaluator),
    "captions": build_caption_evaluator,
    "classification": lambda cfg, dataset, folder: ClassificationEvaluator(dataset, folder),
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    """Return the evaluator that a dataset's metadata asks for.

    Args:
        cfg: the run's config.
        dataset_name: a registered dataset.
        output_folder: where predictions are written.

    Raises:
        UserError: when the dataset names no evaluator, or one that nobody knows. Detectron2 would run the whole
            inference and return nothing.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise UserError(
            f"The dataset {dataset_name} has evaluator_type {kind!r}; known are: {', '.join(EVALUATORS)}.\n"
            f'Set it where the dataset is registered: MetadataCatalog.get("{dataset_name}").set(evaluator_type="coco")'
        )
    return EVALUATORS[kind](cfg, dataset_name, output_folder)
