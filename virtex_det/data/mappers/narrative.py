"""The mapper of narratives: image, tokens, and the pointer's positions at each token."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torchvision.transforms import v2

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concept_words import ConceptWords, read_concept_words
from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.tokenizers import Tokenizer
from virtex_det.data.traces import Window, crop_points, flip_points, inside, points_within
from virtex_det.errors import UserError

# Text, start and end in seconds.
Utterance = tuple[str, float, float]


@MAPPER_REGISTRY.register()
class NarrativeMapper(CaptionMapper):
    """A CaptionMapper that also crops and flips the narrator's trace (LocTex, sec. 3).

    We do not know LocTex's augmentation and alignment of word pieces. Ours is VirTex's
    augmentation, and a word piece has the time of its whole utterance.
    """

    @configurable
    def __init__(
        self, is_train: bool, *, localized_words: ConceptWords | None = None, **options: Any
    ) -> None:
        """Make a mapper from a config, ``NarrativeMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: as for ``CaptionMapper``.
            localized_words: the words that keep their points; None keeps those of all words.
            options: options of ``CaptionMapper``.
        """
        super().__init__(is_train, **options)
        self.localized_words = localized_words

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read the keys of ``CaptionMapper``, and INPUT.CAPTION.CONCEPTS where it is set."""
        options = super().from_config(cfg, is_train)
        own_options = {
            "image_transform": KnownCrop(cfg, is_train),
            "localized_words": (
                read_concept_words(cfg, options["tokenizer"])
                if cfg.INPUT.CAPTION.CONCEPTS
                else None
            ),
        }
        return {**options, **own_options}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            As ``CaptionMapper``, and "trace_points", float32 (points, 3): for each point within the
            time of a token, the token's position in "caption_tokens", and x and y as fractions of
            "image". Points outside of the image are dropped, and those of words that are not to be
            localized.

        Raises:
            UserError: the image cannot be read or has no narrative.
        """
        example, is_flipped = self.map_image(dataset_dict)
        captions, traces = self.narratives(dataset_dict)
        narratives = [
            self._map_narrative(captions[number], traces[number], is_flipped)
            for number in self.choose(len(traces))
        ]
        return self.with_captions(example, narratives)

    def _map_narrative(
        self, caption: str, trace: dict[str, Any], is_flipped: bool
    ) -> dict[str, torch.Tensor]:
        utterances = utterances_of(caption, trace)
        if is_flipped:
            utterances = [(self.exchange(text), start, end) for text, start, end in utterances]
        points = torch.from_numpy(trace["points"])
        places = crop_points(points[:, :2], self.image_transform.window)
        places = flip_points(places) if is_flipped else places
        points = torch.cat([places, points[:, 2:]], dim=1)
        tokens, trace_points = self.align(utterances, points)
        return {"caption_tokens": self.hide_words(tokens), "trace_points": trace_points}

    def align(
        self, utterances: Sequence[Utterance], points: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the tokens of a narrative and its trace points, as in an example.

        Args:
            utterances: the words, one or more.
            points: float32 (points, 3), x and y as fractions of the image, and seconds.
        """
        tokens, positions = encode_utterances(self.tokenizer, utterances, self.max_length)
        points = points[inside(points[:, :2])]
        # In float32 like the points, so that a point at the very end of an utterance belongs to it.
        times = [(start, end) for _, start, end in utterances]
        # shape: (tokens, 2)
        intervals = torch.tensor(times, dtype=torch.float32)[positions]
        token, point = points_within(points[:, 2].contiguous(), *intervals.unbind(1))
        # shape: (points, 3)
        trace_points = torch.cat([1 + token[:, None].float(), points[point, :2]], dim=1)
        caption = torch.tensor([self.tokenizer.sos_id, *tokens, self.tokenizer.eos_id])
        if self.localized_words is not None:
            localized = self.localized_words.positions(caption, self.max_length)
            trace_points = trace_points[torch.isin(trace_points[:, 0].long(), localized)]
        return caption, trace_points

    def narratives(
        self, dataset_dict: Mapping[str, Any]
    ) -> tuple[Sequence[str], Sequence[dict[str, Any]]]:
        """Return the captions of a dataset dict and their traces.

        Raises:
            UserError: it has none, or not one trace per caption.
        """
        captions, traces = dataset_dict.get("captions"), dataset_dict.get("traces")
        if not captions or not traces or len(captions) != len(traces):
            raise UserError(
                f"Image {dataset_dict['file_name']} has {len(captions or ())} captions and "
                f"{len(traces or ())} traces; NarrativeMapper needs equal numbers.\n"
                "Name a dataset with narratives, such as coco_2017_train_narratives, in "
                "DATASETS.TRAIN and TEST, or set MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 to learn from "
                "captions alone."
            )
        return captions, traces


def utterances_of(caption: str, trace: dict[str, Any]) -> Sequence[Utterance]:
    """Return a trace's utterances; a caption without times is one utterance without points."""
    return trace["utterances"] or [(caption, torch.inf, -torch.inf)]


def encode_utterances(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], max_length: int
) -> tuple[list[int], list[int]]:
    """Encode utterances word by word; tokens equal those of the whole text.

    (Tokens do not cross white space.)

    Args:
        tokenizer: encodes words.
        utterances: utterances in order.
        max_length: tokens per caption, including the boundaries, which are not returned.

    Returns:
        The tokens, and for each token the index of its utterance.
    """
    tokens: list[int] = []
    positions: list[int] = []
    for position, (text, _, _) in enumerate(utterances):
        for word in text.split():
            encoded = tokenizer.encode(word)
            tokens += encoded
            positions += [position] * len(encoded)
    return tokens[: max_length - 2], positions[: max_length - 2]


class KnownCrop:
    """The transform of ``build_image_transform``, which remembers its crop.

    Torchvision's key points need a later release, and their flip is a pixel off for points between
    pixels.

    Attributes:
        window: the crop of the last image.
    """

    def __init__(self, cfg: CfgNode, is_train: bool) -> None:
        caption = cfg.INPUT.CAPTION
        self.window = Window(0, 0, 1, 1)
        self._is_train = is_train
        self._size = caption.CROP_SIZE
        self._crop = v2.RandomResizedCrop(caption.CROP_SIZE, scale=tuple(caption.CROP_SCALE))
        self._jitter = v2.RandomApply(
            [v2.ColorJitter(*caption.COLOR_JITTER)], p=caption.COLOR_JITTER_PROB
        )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if self._is_train:
            box = self._crop.get_params(image, self._crop.scale, self._crop.ratio)
            self.window = _window(image, *box)
            return self._jitter(v2.functional.resized_crop(image, *box, self._crop.size))
        image = v2.functional.resize(image, [self._size])
        top, left = (round((side - self._size) / 2) for side in image.shape[1:])
        self.window = _window(image, top, left, self._size, self._size)
        return v2.functional.crop(image, top, left, self._size, self._size)


def _window(image: torch.Tensor, top: int, left: int, height: int, width: int) -> Window:
    rows, columns = image.shape[1:]
    return Window(left / columns, top / rows, width / columns, height / rows)
