"""Evaluation of pretraining models: validation loss, and captions against references."""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table

from virtex_det.data.datasets import load_dataset
from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.errors import UserError
from virtex_det.evaluation.caption_metrics import caption_metrics
from virtex_det.utils import write_atomically

logger = logging.getLogger(__name__)

# Sum over an image's targets and their number, by the name of the loss.
Losses = dict[str, list[float]]


class CaptionEvaluator(DatasetEvaluator):
    """Mean loss per target of any pretraining model, and caption metrics of a model that captions.

    Results are kept by image id, so an image that a sampler gave to two processes counts once. The
    captions go to ``captions.json`` in the output folder, in COCO's results format.
    """

    def __init__(self, cfg: CfgNode, dataset_name: str, output_folder: str | Path) -> None:
        """
        Args:
            cfg: its INPUT.CAPTION.TOKENIZER decodes the model's tokens.
            dataset_name: a registered dataset; the captions of its dicts are the references.
            output_folder: folder for ``captions.json``.
        """
        self.tokenizer_file = cfg.INPUT.CAPTION.TOKENIZER
        self.dataset_name = dataset_name
        self.output_folder = Path(output_folder)
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.losses: dict[Any, Losses] = {}
        self.tokens: dict[Any, list[int]] = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Keep the "losses" and "caption_tokens" that the model returned for a batch."""
        for example, output in zip(inputs, outputs, strict=True):
            if "losses" in output:
                losses = {name: values.tolist() for name, values in output["losses"].items()}
                self.losses[example["image_id"]] = losses
            if "caption_tokens" in output:
                self.tokens[example["image_id"]] = output["caption_tokens"].tolist()

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather the images of all processes, and compute the metrics on the main process.

        Returns:
            "validation": the mean per target of each loss, and their sum "loss", where the model
            returned losses; "captions": metrics in percent, where it returned captions. An empty
            dict on other processes.

        Raises:
            UserError: the model returned neither losses nor captions, or not for each image.
        """
        gathered = comm.gather((self.losses, self.tokens))
        if not comm.is_main_process():
            return {}
        losses = {image: found for part, _ in gathered for image, found in part.items()}
        tokens = {image: found for _, part in gathered for image, found in part.items()}
        references = self._references()
        self._check_whole(references, losses, tokens)
        results = {}
        if losses:
            results["validation"] = mean_losses(losses.values())
            logger.info(
                "Validation loss on %s:\n%s",
                self.dataset_name,
                create_small_table(results["validation"]),
            )
        if tokens and (metrics := self._measure_captions(tokens, references)):
            results["captions"] = metrics
            logger.info(
                "Captions of %s, in percent:\n%s", self.dataset_name, create_small_table(metrics)
            )
        return results

    def _references(self) -> dict[Any, list[str]]:
        references: dict[Any, list[str]] = {}
        for image in load_dataset(self.dataset_name):
            references.setdefault(image["image_id"], []).extend(image.get("captions", ()))
        return references

    def _check_whole(
        self, images: Mapping[Any, Any], losses: Mapping[Any, Any], tokens: Mapping[Any, Any]
    ) -> None:
        if not losses and not tokens:
            raise UserError(
                f"The model returned neither losses nor captions for {self.dataset_name}: there "
                "is nothing to evaluate.\n"
                "Evaluate a detector on a dataset with boxes, and a pretraining model on a "
                "dataset of its task."
            )
        for found, what in ((losses, "loss"), (tokens, "caption")):
            absent = [image for image in images if image not in found]
            if found and absent:
                raise UserError(
                    f"The model returned no {what} for {len(absent)} of the {len(images)} images "
                    f"of {self.dataset_name}, e.g. image {absent[0]}.\n"
                    "Metrics of a part of a dataset are not comparable: repair these images or "
                    "remove them from the annotation file."
                )

    def _measure_captions(
        self, tokens: Mapping[Any, list[int]], references: Mapping[Any, list[str]]
    ) -> dict[str, float]:
        tokenizer = SentencePieceTokenizer(self.tokenizer_file)
        predictions = {image: tokenizer.decode(tokens[image]) for image in references}
        path = self.output_folder / "captions.json"
        content = [
            {"image_id": image, "caption": caption} for image, caption in predictions.items()
        ]
        write_atomically(path, json.dumps(content))
        logger.info("Wrote %d captions in COCO's results format to %s", len(content), path)
        if not all(references.values()):
            logger.warning(
                "No caption metrics: some images of %s have no reference captions",
                self.dataset_name,
            )
            return {}
        logger.info(
            "Measuring %d captions; COCO's 5,000 validation images take minutes", len(predictions)
        )
        return caption_metrics(predictions, references)


def mean_losses(images: Iterable[Losses]) -> dict[str, float]:
    """Return the mean per target of each loss over all images, and their sum as "loss".

    A mean over targets, unlike one over images or batches, does not depend on the batches. NaN
    where there was no target.
    """
    totals: dict[str, tuple[float, float]] = {}
    for losses in images:
        for name, (value, targets) in losses.items():
            value_before, targets_before = totals.get(name, (0.0, 0.0))
            totals[name] = (value_before + value, targets_before + targets)
    means = {
        name: value / targets if targets else math.nan for name, (value, targets) in totals.items()
    }
    return means | {"loss": sum(means.values())}
