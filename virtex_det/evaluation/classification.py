"""Top-1 and top-5 accuracy of image classification."""

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from virtex_det.utils import write_atomically


class ClassificationEvaluator(DatasetEvaluator):
    """Top-1 and top-5 accuracy, and the mean loss."""

    def __init__(self, dataset_name: str, output_folder: str) -> None:
        """
        Args:
            dataset_name: a registered dataset; its metadata names the classes.
            output_folder: folder for ``predictions.json``: the label and the five best classes of
                each image.
        """
        self.dataset_name = dataset_name
        self.output_folder = output_folder
        self.predictions: list[dict[str, Any]] = []

    def reset(self) -> None:
        self.predictions = []

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        scores = torch.stack([output["scores"] for output in outputs])
        best = scores.topk(min(5, scores.shape[1])).indices.tolist()
        losses = torch.stack(
            [output["losses"]["loss_classification"][0] for output in outputs]
        ).tolist()
        for example, classes, loss in zip(inputs, best, losses, strict=True):
            image = {"image_id": example["image_id"], "label": example["label"]}
            self.predictions.append(image | {"best": classes, "loss": loss})

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Return accuracies in percent and the mean loss; None except on the main process."""
        predictions = list(itertools.chain(*comm.gather(self.predictions)))
        if not comm.is_main_process():
            return None
        self._write(predictions)
        top1 = sum(image["label"] == image["best"][0] for image in predictions)
        top5 = sum(image["label"] in image["best"] for image in predictions)
        loss = sum(image["loss"] for image in predictions)
        return {
            "classification": {
                "top1": 100 * top1 / len(predictions),
                "top5": 100 * top5 / len(predictions),
            },
            "validation": {"loss": loss / len(predictions)},
        }

    def _write(self, predictions: list[dict[str, Any]]) -> None:
        names = MetadataCatalog.get(self.dataset_name).classes
        named = [
            image
            | {"label": names[image["label"]], "best": [names[index] for index in image["best"]]}
            for image in predictions
        ]
        write_atomically(Path(self.output_folder) / "predictions.json", json.dumps(named))
