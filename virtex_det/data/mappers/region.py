"""The mapper of LocCa: an image, a caption, and the box and caption of one of its regions."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concept_words import ConceptWords, read_concept_words
from virtex_det.data.mappers.caption import CaptionMapper, captions_in
from virtex_det.data.mappers.narrative import KnownCrop
from virtex_det.data.region_texts import RegionTexts
from virtex_det.data.traces import Window, crop_points, flip_points, inside
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)

Box = tuple[float, ...]  # left, top, right and bottom as fractions of the image
_LEAST_VISIBLE = 0.5  # of a box's area, in the crop


class Region(NamedTuple):
    """A part of an image with a caption: a box, or the points of a trace."""

    text: str
    points: Tensor  # float32 (points, 2), x and y as fractions of the image; a box has 2 corners
    is_box: bool


@MAPPER_REGISTRY.register()
class RegionMapper(CaptionMapper):
    """Makes an augmented image, one of its captions, and the texts of one of its regions (LocCa).

    Regions come from the dict's "regions", which datasets with boxes have, else from the trace of
    the narrative: the box of some words is the extent of the pointer while they are said. The words
    are one utterance; scenes, whose narratives say which words name one instance, have all of
    these. Where INPUT.CAPTION.CONCEPTS is set, words without a concept are no region.

    Ours: a box with less than half of its area in the crop is left out, others are clipped; points
    of a trace outside the crop are dropped.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        texts: RegionTexts,
        region_words: ConceptWords | None = None,
        **options: Any,
    ) -> None:
        """Make a mapper from a config, ``RegionMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw the caption, the flip and the region; otherwise take the first caption
                and the first region that is in the crop, and do not flip.
            texts: writes tokens.
            region_words: words of a trace one of which a region needs; None for no such condition.
            options: options of ``CaptionMapper``.
        """
        super().__init__(is_train, **options)
        self.texts = texts
        self.region_words = region_words

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT and INPUT.CAPTION."""
        options, caption = super().from_config(cfg, is_train), cfg.INPUT.CAPTION
        tokenizer = options["tokenizer"]
        own_options = {
            "image_transform": KnownCrop(cfg, is_train),
            "texts": RegionTexts(tokenizer, caption.MAX_LENGTH, caption.BOX_BINS),
            "region_words": read_concept_words(cfg, tokenizer) if caption.CONCEPTS else None,
        }
        return {**options, **own_options}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            "image" (3, S, S) uint8, "image_id", "height", "width"; "caption_tokens" (L,) int64 from
            [SOS] to [EOS], and "caption_labels" (L,): what is to be predicted, 0 elsewhere. Where a
            region is in the crop likewise "referring_tokens" and "referring_labels" for its box,
            and "grounded_tokens" and "grounded_labels" for its caption. With several captions each
            has its own dict, in "by_caption", with the keys that are about it.

        Raises:
            UserError: the image cannot be read or has no caption.
        """
        example, is_flipped = self.map_image(dataset_dict)
        captions = captions_in(dataset_dict)
        texts = [
            self._map_texts(captions[number], self.regions(dataset_dict, number), is_flipped)
            for number in self.choose(len(captions))
        ]
        return self.with_captions(example, texts)

    def _map_texts(
        self, caption: str, regions: Sequence[Region], is_flipped: bool
    ) -> dict[str, Tensor]:
        """Return the texts of a caption and of one of its regions."""
        exchanged = self.exchange(caption) if is_flipped else caption
        texts = {"caption": self.texts.caption(exchanged)}
        found = self._choose_region(regions, self.image_transform.window, is_flipped)
        if found is not None:
            text, box = found
            texts["referring"] = self.texts.referring(text, box)
            texts["grounded"] = self.texts.grounded(text, box)
        mapped: dict[str, Tensor] = {}
        for name, (tokens, labels) in texts.items():
            mapped |= {f"{name}_tokens": tokens, f"{name}_labels": labels}
        return mapped

    def regions(self, dataset_dict: Mapping[str, Any], number: int) -> list[Region]:
        """Return the regions of an image, those of a trace with the caption of that number.

        Raises:
            UserError: a region has no words, or its box is outside the image.
        """
        if "regions" in dataset_dict:
            check_boxes(dataset_dict)
            return [_box_region(entry) for entry in dataset_dict["regions"]]
        traces = dataset_dict.get("traces")
        if not traces:
            return []
        found, wanted = trace_regions(traces[number]), self.region_words
        if wanted is None:
            return found
        return [region for region in found if wanted.are_in(region.text)]

    def log_coverage(self, dicts: Iterable[dict[str, Any]]) -> None:
        """Log the number of images that have only captions to predict."""
        have = [_may_have_regions(entry) for entry in dicts]
        logger.info(
            "%d of %d images have neither boxes nor a trace: only their captions are predicted",
            have.count(False),
            len(have),
        )

    def _choose_region(
        self, regions: Sequence[Region], window: Window, is_flipped: bool
    ) -> tuple[str, Box] | None:
        """Return the caption and box of a region in the crop; None if there is none."""
        order = torch.randperm(len(regions)) if self.is_train else torch.arange(len(regions))
        for index in order.tolist():
            box = visible_box(regions[index], window, is_flipped)
            if box is not None:
                text = regions[index].text
                return self.exchange(text) if is_flipped else text, box
        return None


def trace_regions(trace: Mapping[str, Any]) -> list[Region]:
    """Return the regions of a trace: words and the pointer's places while they are said.

    Args:
        trace: of ``load_narratives``. With "grounding", neighbouring words of one instance are one
            region, and words of none are no region; otherwise each utterance is one.

    Returns:
        Regions with one or more points, in the order of the words.
    """
    utterances = trace["utterances"]
    grounding = trace.get("grounding") or range(len(utterances))
    groups = groupby(zip(grounding, utterances, strict=True), key=itemgetter(0))
    spoken = [
        [utterance for _, utterance in group] for instance, group in groups if instance is not None
    ]
    # In float32 like the points, so that a point at the very end of a word belongs to it.
    times = torch.tensor([(words[0][1], words[-1][2]) for words in spoken], dtype=torch.float32)
    starts, ends = times.view(-1, 2).unbind(1)
    points = torch.from_numpy(trace["points"])
    first = torch.searchsorted(points[:, 2].contiguous(), starts.contiguous())
    last = torch.searchsorted(points[:, 2].contiguous(), ends.contiguous(), right=True)
    is_timed = starts <= ends  # False for NaN, too
    regions = []
    for words, begin, end, timed in zip(
        spoken, first.tolist(), last.tolist(), is_timed.tolist(), strict=True
    ):
        if timed and begin < end:
            text = " ".join(text for text, _, _ in words)
            regions.append(Region(text, points[begin:end, :2], is_box=False))
    return regions


def visible_box(region: Region, window: Window, is_flipped: bool) -> Box | None:
    """Return the box of a region in a crop that may be flipped; None if too little of it is there.

    Args:
        region: with points as fractions of the whole image.
        window: the crop.
        is_flipped: the crop is flipped.

    Returns:
        Left, top, right and bottom as fractions of the crop.
    """
    points = crop_points(region.points, window)
    points = flip_points(points) if is_flipped else points
    if not region.is_box:
        points = points[inside(points)]
    if not len(points):
        return None
    whole = torch.cat([points.amin(dim=0), points.amax(dim=0)])
    box = whole.clamp(0, 1)
    if not _area(box) or _area(box) < _LEAST_VISIBLE * _area(whole):
        return None
    return tuple(box.tolist())


def check_boxes(dataset_dict: Mapping[str, Any]) -> None:
    """See that each of an image's "regions" has words and a box in the image.

    Raises:
        UserError: one has not.
    """
    for number, region in enumerate(dataset_dict.get("regions", ())):
        text, box = region.get("text"), region.get("box")
        if not isinstance(text, str) or not _is_in_image(box):
            raise UserError(
                f"Region {number} (counted from 0) of image {dataset_dict['image_id']} has the "
                f"text {text!r:.80} and the box {box!r:.80}.\n"
                "Expected the words for the region, and left, top, right and bottom as fractions "
                "of the image, from 0 to 1, left before right and top before bottom."
            )


def _is_in_image(box: Any) -> bool:
    if not isinstance(box, Sequence) or len(box) != 4:
        return False
    if not all(isinstance(side, int | float) for side in box):
        return False
    left, top, right, bottom = box
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def _may_have_regions(entry: Mapping[str, Any]) -> bool:
    return bool(entry.get("regions")) or any(
        len(trace["points"]) and trace["utterances"] for trace in entry.get("traces") or ()
    )


def _box_region(entry: Mapping[str, Any]) -> Region:
    corners = torch.tensor(entry["box"], dtype=torch.float32).view(2, 2)
    return Region(entry["text"], corners, is_box=True)


def _area(box: Tensor) -> float:
    width, height = (box[2:] - box[:2]).tolist()
    return width * height
