"""Where a registered dataset has its annotations, and what it calls its classes there."""

from pathlib import Path

import numpy as np
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json
from detectron2.utils.file_io import PathManager

from virtex_det.data.datasets.handover import HandOver
from virtex_det.errors import UserError
from virtex_det.evaluation.detection.ground_truth import GroundTruth
from virtex_det.evaluation.detection.voc import VOCGroundTruth

_read = HandOver()


def read_truth(dataset_name: str, output_folder: str | Path) -> GroundTruth | VOCGroundTruth:
    """Read and check the annotations of a registered dataset.

    Args:
        dataset_name: its metadata says where they are; where it names no file, one is made of the dataset's dicts.
        output_folder: where that file goes.

    Raises:
        UserError: the annotations cannot be used; it says which entry.
    """
    if (kept := _read.take(dataset_name)) is not None:
        return kept
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.evaluator_type == "pascal_voc":
        return VOCGroundTruth.read(metadata.dirname, metadata.split, metadata.thing_classes, metadata.year)
    return GroundTruth.read(annotation_file(dataset_name, output_folder), metadata.evaluator_type)


def keep_truth(dataset_name: str, truth: GroundTruth | VOCGroundTruth) -> None:
    """Keep what was read of a dataset's annotations for the next ``read_truth``, which then reads nothing."""
    _read.keep(dataset_name, truth)


def forget_truths() -> None:
    """Forget all that ``keep_truth`` kept."""
    _read.forget()


def annotation_file(dataset_name: str, output_folder: str | Path) -> str:
    """Return the path of a dataset's annotations in COCO's format, made of its dicts where there is none."""
    json_file = MetadataCatalog.get(dataset_name).get("json_file")
    if json_file is None:
        json_file = str(Path(output_folder) / f"{dataset_name}_coco_format.json")
        try:
            convert_to_coco_json(dataset_name, json_file, allow_cached=False)
        except (TypeError, ValueError, LookupError, NotImplementedError, AssertionError, AttributeError) as error:
            raise UserError(
                f"data set {dataset_name}: no annotations in COCO's form can be made of its dicts, by which it is "
                f"evaluated: {type(error).__name__}: {error!s:.300}\nGive each object the types of "
                "docs/your_own_data.md, plain lists and numbers rather than NumPy's."
            ) from error
    return PathManager.get_local_path(json_file)


def class_ids(metadata: Metadata) -> np.ndarray:
    """Return the annotation file's id of each class of a dataset, as Detectron2's evaluators take it."""
    to_class = metadata.get("thing_dataset_id_to_contiguous_id")
    if to_class is not None:
        return np.array(sorted(to_class, key=to_class.__getitem__), dtype=np.int64)
    return np.arange(len(metadata.thing_classes)) + (metadata.evaluator_type == "lvis")
