"""The mapper of narratives: image, tokens, and the pointer's positions at each token."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torchvision.transforms import v2

from virtex_det.data.build import MAPPER_REGISTRY
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

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read the keys of ``CaptionMapper``."""
        return {**super().from_config(cfg, is_train), "image_transform": _KnownCrop(cfg, is_train)}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            As ``CaptionMapper``, and "trace_points", float32 (points, 3): for each point within the
            time of a token, the token's position in "caption_tokens", and x and y as fractions of
            "image". Points outside of the image are dropped.

        Raises:
            UserError: the image cannot be read or has no narrative.
        """
        example, is_flipped = self.map_image(dataset_dict)
        utterances, points = self._choose_narrative(dataset_dict)
        if is_flipped:
            utterances = [(self.exchange(text), start, end) for text, start, end in utterances]
        tokens, positions = encode_utterances(self.tokenizer, utterances, self.max_length)

        places = crop_points(points[:, :2], self.image_transform.window)
        places = flip_points(places) if is_flipped else places
        kept = inside(places)
        # In float32 like the points, so that a point at the very end of an utterance belongs to it.
        times = [(start, end) for _, start, end in utterances]
        # shape: (tokens, 2)
        intervals = torch.tensor(times, dtype=torch.float32)[positions]
        token, point = points_within(points[kept, 2], *intervals.unbind(1))
        # shape: (points, 3)
        trace_points = torch.cat([1 + token[:, None].float(), places[kept][point]], dim=1)
        caption_tokens = torch.tensor([self.tokenizer.sos_id, *tokens, self.tokenizer.eos_id])
        return {**example, "caption_tokens": caption_tokens, "trace_points": trace_points}

    def _choose_narrative(
        self, dataset_dict: dict[str, Any]
    ) -> tuple[list[Utterance], torch.Tensor]:
        captions, traces = dataset_dict.get("captions"), dataset_dict.get("traces")
        if not captions or not traces or len(captions) != len(traces):
            raise UserError(
                f"Image {dataset_dict['file_name']} has {len(captions or ())} captions and "
                f"{len(traces or ())} traces; NarrativeMapper needs equal numbers.\n"
                "Set DATASETS.TRAIN to a dataset with narratives, such as "
                "coco_2017_train_narratives, or MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 to learn from "
                "captions alone."
            )
        number = int(torch.randint(len(traces), ())) if self.is_train else 0
        # A caption without times is one utterance without points.
        utterances = traces[number]["utterances"] or [(captions[number], torch.inf, -torch.inf)]
        return utterances, torch.from_numpy(traces[number]["points"])


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


class _KnownCrop:
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
