"""Choosing the evaluator of a dataset by the ``evaluator_type`` of its metadata."""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator

from virtex_det.errors import UserError
from virtex_det.evaluation.lvis import LVISEvaluator

EVALUATORS: dict[str, Callable[[str, str], DatasetEvaluator]] = {
    "coco": lambda dataset, folder: COCOEvaluator(dataset, output_dir=folder),
    "lvis": lambda dataset, folder: LVISEvaluator(dataset, output_dir=folder),
    "pascal_voc": lambda dataset, folder: PascalVOCDetectionEvaluator(dataset),
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
    return EVALUATORS[kind](dataset_name, output_folder)
