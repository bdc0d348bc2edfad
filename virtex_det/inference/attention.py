"""The attention of a trained model to the words of a caption, beside the narrator's trace."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from virtex_det.config import Overrides
from virtex_det.data.mappers.concept import ConceptMapper
from virtex_det.data.mappers.narrative import (
    NarrativeMapper,
    Utterance,
    encode_utterances,
    utterances_of,
)
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.data.traces import crop_points, inside, points_within
from virtex_det.engine.evaluation import load_trained
from virtex_det.errors import UserError
from virtex_det.escaping import printable
from virtex_det.image_files import BrokenImage
from virtex_det.inference.attention_sheets import (
    PICTURE_SIDE,
    WORD_SIDE,
    Guess,
    Sheet,
    Sheets,
    WordPicture,
    draw_heat,
    draw_trace,
    resized,
)
from virtex_det.inference.pages import encode_jpeg
from virtex_det.inference.trained import ATTENTION, Source, trained_config
from virtex_det.modeling.pretraining.icmlm import ICMLMModel
from virtex_det.modeling.pretraining.loctex import LocTexModel
from virtex_det.modeling.textual.fusion import Masked
from virtex_det.pages.paths import shown_path
from virtex_det.text_files import read_text, split_lines

GUESSES = 5


class Look(NamedTuple):
    """The attention of a model to a word."""

    text: str
    word: int  # its index in the caption
    attention: Tensor  # (rows, columns), with sum 1
    guesses: tuple[Guess, ...] = ()


class TracedCaption(NamedTuple):
    """A caption as the model reads it, and the pointer's trace."""

    words: list[Utterance]  # one word each
    tokens: list[int]  # without boundaries
    word_of: list[int]  # index of each token's word
    points: Tensor  # float32 (points, 3): x and y as fractions of the model's image, seconds


class EveryWord:
    """LocTex: the attention of each word that is not hidden, the mean over its word pieces."""

    def __init__(self, cfg: CfgNode, model: LocTexModel) -> None:
        """
        Args:
            cfg: its INPUT.CAPTION.TOKENIZER says which token hides a word.
            model: in evaluation mode.
        """
        self.model = model
        self.mask_id = read_tokenizer(cfg.INPUT.CAPTION.TOKENIZER).mask_id

    def __call__(self, image: Tensor, caption: Tensor, narration: TracedCaption) -> Iterator[Look]:
        """Yield a look per word.

        Args:
            image: (3, S, S).
            caption: (L,), the narration's tokens with boundaries.
            narration: the caption's words and trace.
        """
        attention = self.model([{"image": image, "caption_tokens": caption}])[0]["attention"][1:-1]
        word_of = torch.tensor(narration.word_of)
        is_visible = caption[1:-1] != self.mask_id
        for word in word_of[is_visible].unique().tolist():
            yield Look(narration.words[word][0], word, attention[word_of == word].mean(dim=0))


class EveryConcept:
    """ICMLM: each concept word masked in turn, with the model's guesses (as in its Fig. 1)."""

    def __init__(self, cfg: CfgNode, model: ICMLMModel) -> None:
        """
        Args:
            cfg: its INPUT.CAPTION.CONCEPTS are the words to mask.
            model: in evaluation mode.
        """
        self.model = model
        self.mapper = ConceptMapper(cfg, is_train=False)

    def __call__(self, image: Tensor, caption: Tensor, narration: TracedCaption) -> Iterator[Look]:
        """Yield a look per concept word; arguments as in ``EveryWord``."""
        positions = self.mapper.concept_positions(caption)
        if not len(positions):
            return
        attention, probabilities = self._masked_in_turn(image, caption, positions)
        for position, cells, row in zip(positions.tolist(), attention, probabilities, strict=True):
            true = int(caption[position])
            yield Look(
                self._word(true), narration.word_of[position - 1], cells, self._guesses(row, true)
            )

    def _masked_in_turn(
        self, image: Tensor, caption: Tensor, positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return attention (positions, rows, columns) and probabilities (positions, vocabulary)."""
        turns = torch.arange(len(positions))
        captions = caption.repeat(len(positions), 1)
        captions[turns, positions] = self.mapper.tokenizer.mask_id
        device = self.model.device
        captions, turns, positions = (tensor.to(device) for tensor in (captions, turns, positions))
        padding = torch.zeros_like(captions, dtype=torch.bool)
        text, only = self.model.text_encoder(captions, padding), torch.zeros_like(turns)
        masked = Masked(text, padding, images=only, captions=turns, positions=positions)
        grid = self.model.visual_grid([{"image": image}])
        probabilities = self.model.fusion(grid, masked).float().softmax(dim=1)
        return self.model.fusion.attention(grid, masked).float().cpu(), probabilities.cpu()

    def _guesses(self, probabilities: Tensor, true: int) -> tuple[Guess, ...]:
        best = probabilities.topk(min(GUESSES, len(probabilities)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple(
            Guess(self._word(token), probability, token == true) for token, probability in pairs
        )

    def _word(self, token: int) -> str:
        return self.mapper.tokenizer.decode([token]) or "(no word)"


_WAYS_TO_LOOK = {"LocTexModel": EveryWord, "ICMLMModel": EveryConcept}


class AttentionDrawer:
    """A trained LocTexModel or ICMLMModel, ready to draw its attention over captioned images.

    Example:
        >>> drawer = AttentionDrawer("output/loctex")
        >>> drawer.draw(load_dataset("scenes_val_narratives")[:20]).drawn[0].words[0].text
    """

    def __init__(self, source: Source, overrides: Overrides = ()) -> None:
        """Load a model, whole or not at all.

        Args:
            source: the folder of a run, or a config with MODEL.WEIGHTS.
            overrides: config keys to set.

        Raises:
            UserError: the source is invalid or another model, or its weights or vocabulary do not
                match.
        """
        self.cfg = cfg = trained_config(source, overrides=overrides, task=ATTENTION)
        self.mapper = NarrativeMapper(cfg, is_train=False)
        self.model, self.report, _ = load_trained(cfg, cfg.MODEL.WEIGHTS)
        self.model.eval()
        self.look = _WAYS_TO_LOOK[cfg.MODEL.META_ARCHITECTURE](cfg, self.model)

    def draw(self, dicts: Sequence[dict[str, Any]]) -> Sheets:
        """Draw a sheet per image, with its first caption; skip broken images.

        Args:
            dicts: dataset dicts with "captions", and with "traces" for narratives.
        """
        sheets = Sheets([], [])
        for dataset_dict in tqdm(dicts, unit="image", desc="drawing attention"):
            try:
                sheets.drawn.append(self._draw(dataset_dict))
            except BrokenImage as error:
                sheets.skipped.append(f"{printable(dataset_dict['file_name'])}: {error.reason}")
        return sheets

    def describe(self) -> dict[str, str]:
        """Return the model, its weights and its preprocessing, for a page."""
        report, caption = self.report, self.cfg.INPUT.CAPTION
        return {
            "Model": self.cfg.MODEL.META_ARCHITECTURE,
            "Weights": f"{shown_path(report.path)} (sha256 {report.sha256[:12]})" if report else "",
            "Vocabulary": f"{caption.TOKENIZER}, {self.mapper.tokenizer.vocab_size} pieces",
            "Images": f"shorter side resized to {caption.CROP_SIZE} px, square centre crop, which "
            "the pictures show",
        }

    @torch.no_grad()
    def _draw(self, dataset_dict: dict[str, Any]) -> Sheet:
        example, _ = self.mapper.map_image(dataset_dict)
        narration = self._narration(dataset_dict)
        tokenizer = self.mapper.tokenizer
        caption = torch.tensor([tokenizer.sos_id, *narration.tokens, tokenizer.eos_id])
        caption = self.mapper.hide_words(caption)
        looks = self.look(example["image"], caption, narration)
        pixels = example["image"].flip(0) if self.cfg.INPUT.FORMAT == "BGR" else example["image"]
        draw = _Pictures(pixels.permute(1, 2, 0).numpy(), narration)
        return Sheet(
            file_name=printable(dataset_dict["file_name"]),
            caption=" ".join(word for word, _, _ in narration.words),
            picture=draw.whole(),
            has_trace=draw.has_trace,
            words=tuple(draw.word(look) for look in looks),
            cut=len(narration.words) - 1 - max(narration.word_of, default=-1),
        )

    def _narration(self, dataset_dict: dict[str, Any]) -> TracedCaption:
        """Return the first caption word by word, and its points in the mapper's last image."""
        captions, traces = dataset_dict.get("captions"), dataset_dict.get("traces")
        if not captions:
            raise UserError(
                f"There is no caption for {printable(dataset_dict['file_name'])}. Name a dataset "
                "with captions or narratives, such as coco_2017_val_captions."
            )
        trace: dict[str, Any] = (
            traces[0] if traces else {"utterances": [], "points": np.zeros((0, 3), np.float32)}
        )
        words: list[Utterance] = []
        for text, start, end in utterances_of(captions[0], trace):
            words += [(word, start, end) for word in text.split()]
        tokens, word_of = encode_utterances(self.mapper.tokenizer, words, self.mapper.max_length)
        points = torch.from_numpy(trace["points"])
        places = crop_points(points[:, :2], self.mapper.image_transform.window)
        return TracedCaption(words, tokens, word_of, torch.cat([places, points[:, 2:]], dim=1))


class _Pictures:
    """Draws over one image."""

    def __init__(self, pixels: np.ndarray, narration: TracedCaption) -> None:
        """Take the model's image, (S, S, 3) RGB."""
        self.large, self.small = (resized(pixels, side) for side in (PICTURE_SIDE, WORD_SIDE))
        self.points = narration.points.numpy()
        self.has_trace = len(self.points) > 0
        intervals = torch.tensor(
            [(start, end) for _, start, end in narration.words], dtype=torch.float32
        )
        self._word, self._point = points_within(
            narration.points[:, 2].contiguous(), *intervals.view(-1, 2).unbind(1)
        )

    def whole(self) -> bytes:
        """Draw the image with the whole trace."""
        return encode_jpeg(self._trace(self.large, np.arange(len(self.points))))

    def word(self, look: Look) -> WordPicture:
        """Draw the attention to a word, and the pointer's trace."""
        of_word = self._point[self._word == look.word].numpy()
        attention = look.attention.numpy()
        return WordPicture(
            text=look.text,
            attention=encode_jpeg(draw_heat(self.small, attention)),
            peak=float(attention.max()),
            trace=encode_jpeg(self._trace(self.small, of_word)) if self.has_trace else None,
            points=int(inside(torch.from_numpy(self.points[of_word, :2])).sum()),
            guesses=look.guesses,
        )

    def _trace(self, pixels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        span = (self.points[0, 2], self.points[-1, 2]) if self.has_trace else (0, 0)
        return draw_trace(pixels, self.points[chosen], span)


def with_captions(paths: Sequence[Path], caption: str = "") -> list[dict[str, Any]]:
    """Return dataset dicts of image files, with this caption or the first line of their text files.

    Raises:
        UserError: an image has no caption; models with attention do not write captions.
    """
    captions = [caption.strip() or _caption_beside(path) for path in paths]
    without = [path for path, found in zip(paths, captions, strict=True) if not found]
    if without:
        more = f" and {len(without) - 1} more" if len(without) > 1 else ""
        raise UserError(
            f"There is no caption for {printable(without[0])}{more}, and this model does not "
            "write captions.\n"
            "Give one with --caption TEXT, or write it to "
            f"{printable(without[0].with_suffix('.txt').name)} beside it."
        )
    pairs = enumerate(zip(paths, captions, strict=True))
    return [
        {"file_name": str(path), "image_id": number, "captions": [found]}
        for number, (path, found) in pairs
    ]


def _caption_beside(path: Path) -> str:
    """Return the first line that is not blank in the text file beside an image, "" if none."""
    text = path.with_suffix(".txt")
    lines = split_lines(read_text(text)) if text.is_file() else []
    return next((line.strip() for line in lines if line.strip()), "")
