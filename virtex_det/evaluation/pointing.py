"""The pointing game: is the attention of a word on the object that the word names?"""

import contextlib
import io
import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO
from torch import Tensor

from virtex_det.data.datasets import load_dataset
from virtex_det.data.mappers.narrative import encode_utterances
from virtex_det.data.tokenizers import read_tokenizer

logger = logging.getLogger(__name__)


class PointingGameEvaluator(DatasetEvaluator):
    """The share of object words whose attention is largest in a cell centred on the object.

    Object words are words that name the class of an annotated object. The dataset needs narratives
    with "grounding" (for each word the annotation it is about, or None) and metadata
    "instances_json", the annotation file. The model returns each image's "attention" (L, rows,
    columns) of the caption's tokens; words without attention, such as the unmasked words of a
    masked language model, do not count, nor do hidden words.
    """

    def __init__(self, cfg: CfgNode, dataset_name: str, output_folder: str | Path = "") -> None:
        """
        Args:
            cfg: its INPUT.CAPTION determines the tokens.
            dataset_name: a registered dataset.
            output_folder: unused; nothing is written.
        """
        self.tokenizer = read_tokenizer(cfg.INPUT.CAPTION.TOKENIZER)
        self.max_length = cfg.INPUT.CAPTION.MAX_LENGTH
        self.dataset_name = dataset_name
        with contextlib.redirect_stdout(io.StringIO()):
            self.objects = COCO(MetadataCatalog.get(dataset_name).instances_json)
        self.traces = {image["image_id"]: image["traces"] for image in load_dataset(dataset_name)}
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self.words: dict[Any, list[tuple[float, float, float]]] = {}

    def process(self, inputs: Sequence[dict[str, Any]], outputs: Sequence[dict[str, Any]]) -> None:
        """Judge the attention of the object words in a batch's captions."""
        for example, output in zip(inputs, outputs, strict=True):
            if "attention" in output:
                self.words[example["image_id"]] = [
                    _judge(output["attention"][tokens].sum(dim=0).numpy(), mask)
                    for tokens, mask in self._named_objects(example)
                    if output["attention"][tokens].any()
                ]

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Return under "pointing" the "accuracy" in percent and the number of "words".

        The results also have, in percent, "chance", the accuracy of random cells, and "ceiling",
        the share of words whose object covers the centre of any cell. Other processes return an
        empty dict.
        """
        gathered = comm.gather(self.words)
        if not comm.is_main_process():
            return {}
        images = {image: words for part in gathered for image, words in part.items()}
        words = list(itertools.chain.from_iterable(images.values()))
        if not words:
            logger.warning("No pointing game: no caption of %s names an object", self.dataset_name)
            return {}
        accuracy, chance, ceiling = (100 * np.mean(words, axis=0)).tolist()
        results = {"accuracy": accuracy, "chance": chance, "ceiling": ceiling, "words": len(words)}
        logger.info("Pointing game on %s:\n%s", self.dataset_name, create_small_table(results))
        return {"pointing": results}

    def _named_objects(self, example: dict[str, Any]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield the token positions of each object word, and the mask of its object."""
        caption = example["caption_tokens"]
        if "masked_labels" in example:
            caption = torch.where(example["masked_labels"] > 0, example["masked_labels"], caption)
        trace, utterance_of = self._narrative_of(example["image_id"], caption)
        for number, ((text, _, _), annotation) in enumerate(
            zip(trace.get("utterances", ()), trace.get("grounding", ()), strict=True)
        ):
            tokens = [
                1 + token for token, utterance in enumerate(utterance_of) if utterance == number
            ]
            if annotation is None or not tokens or self.tokenizer.mask_id in caption[tokens]:
                continue
            if text == self._class_of(annotation):
                yield tokens, self.objects.annToMask(self.objects.anns[annotation])

    def _narrative_of(self, image_id: Any, caption: Tensor) -> tuple[dict[str, Any], list[int]]:
        """Return the first trace of this caption, and the utterance of each of its tokens.

        With INPUT.CAPTION.HIDE_OTHER_WORDS the caption has [MASK] for some words.
        """
        for trace in self.traces[image_id]:
            tokens, utterance_of = encode_utterances(
                self.tokenizer, trace["utterances"], self.max_length
            )
            found, shown = torch.tensor(tokens), caption[1:-1]
            is_same = found.shape == shown.shape and bool(
                ((found == shown) | (shown == self.tokenizer.mask_id)).all()
            )
            if is_same:
                return trace, utterance_of
        return {}, []

    def _class_of(self, annotation: int) -> str:
        return self.objects.cats[self.objects.anns[annotation]["category_id"]]["name"]


def _judge(attention: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """Return whether the best cell is on the mask, the share of such cells, and if any is."""
    square = min(mask.shape)
    rows, columns = (
        _centres(*sizes, square) for sizes in zip(attention.shape, mask.shape, strict=True)
    )
    on_mask = mask[np.ix_(rows, columns)]
    return float(on_mask.flat[attention.argmax()]), float(on_mask.mean()), float(on_mask.any())


def _centres(cells: int, side: int, square: int) -> np.ndarray:
    """Return the pixels of cell centres along a side; cells divide the image's middle square."""
    return ((side - square) / 2 + (np.arange(cells) + 0.5) / cells * square).astype(int)
