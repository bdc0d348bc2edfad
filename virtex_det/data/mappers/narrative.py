"""Dataset dicts with narratives to pretraining examples: image, tokens, and where the pointer was at each token."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from torchvision.transforms import v2

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.mappers.caption import CaptionMapper
from virtex_det.data.traces import Window, crop_points, flip_points, inside, points_within
from virtex_det.data.wordpiece import Tokenizer
from virtex_det.errors import UserError

# Text, start and end in seconds.
Utterance = tuple[str, float, float]


@MAPPER_REGISTRY.register()
class NarrativeMapper(CaptionMapper):
    """A CaptionMapper whose crop and flip carry the narrator's trace along (LocTex, sec. 3).

    LocTex's own augmentation and its alignment of word pieces are not known. Ours: VirTex's augmentation, and a word
    piece has the time of its whole utterance.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read what ``CaptionMapper`` reads."""
        return {**super().from_config(cfg, is_train), "image_transform": _KnownCrop(cfg, is_train)}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            As ``CaptionMapper``, and "trace_points": float32 (points, 3), position in "caption_tokens", x and y in
            shares of "image", for each point within the time of each token. Points outside of the image are dropped.

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
        # In float32 like the points, so that a point at the very end of an utterance still belongs to it.
        intervals = torch.tensor([(start, end) for _, start, end in utterances], dtype=torch.float32)[positions]
        token, point = points_within(points[kept, 2], *intervals.unbind(1))
        trace_points = torch.cat([1 + token[:, None].float(), places[kept][point]], dim=1)
        caption_tokens = torch.tensor([self.tokenizer.sos_id, *tokens, self.tokenizer.eos_id])
        return {**example, "caption_tokens": caption_tokens, "trace_points": trace_points}

    def _choose_narrative(self, dataset_dict: dict[str, Any]) -> tuple[list[Utterance], torch.Tensor]:
        captions, traces = dataset_dict.get("captions"), dataset_dict.get("traces")
        if not captions or not traces or len(captions) != len(traces):
            raise UserError(
                f"Image {dataset_dict['file_name']} has {len(captions or ())} captions and {len(traces or ())} traces; "
                "NarrativeMapper needs as many of both.\nSet DATASETS.TRAIN to a dataset with narratives, such as "
                "coco_2017_train_narratives, or MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 to learn from captions alone."
            )
        number = int(torch.randint(len(traces), ())) if self.is_train else 0
        # A caption that nobody timed is as one utterance at no time.
        utterances = traces[number]["utterances"] or [(captions[number], torch.inf, -torch.inf)]
        return utterances, torch.from_numpy(traces[number]["points"])


def encode_utterances(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], max_length: int
) -> tuple[list[int], list[int]]:
    """Encode utterances word by word: the tokens are those of the whole text, since pieces do not cross white space.

    Args:
        tokenizer: encodes words.
        utterances: what is said, in order.
        max_length: tokens, boundaries included, which are not returned.

    Returns:
        The tokens, and for each the position of its utterance.
    """
    pairs = [
        (token, position)
        for position, (text, _, _) in enumerate(utterances)
        for word in text.split()
        for token in tokenizer.encode(word)
    ][: max_length - 2]
    return [token for token, _ in pairs], [position for _, position in pairs]


class _KnownCrop:
    """The image part of INPUT.CAPTION as ``build_image_transform`` has it; remembers where it cropped.

    Torchvision's own key points need a later release, and its flip of them is a pixel off for points between pixels.

    Attributes:
        window: the part of the last image that was taken.
    """

    def __init__(self, cfg: CfgNode, is_train: bool) -> None:
        caption = cfg.INPUT.CAPTION
        self.window = Window(0, 0, 1, 1)
        self._is_train = is_train
        self._size = caption.CROP_SIZE
        self._crop = v2.RandomResizedCrop(caption.CROP_SIZE, scale=tuple(caption.CROP_SCALE))
        self._jitter = v2.RandomApply([v2.ColorJitter(*caption.COLOR_JITTER)], p=caption.COLOR_JITTER_PROB)

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
