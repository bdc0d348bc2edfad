"""Location-aware captioning (LocCa): predict a caption, a region's box, and a region's caption."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor

from virtex_det.data.region_texts import read_caption_prompt
from virtex_det.modeling.pretraining.captioning import CaptioningModel, token_losses
from virtex_det.modeling.pretraining.image_model import TargetLosses
from virtex_det.modeling.textual.generation import build_caption_decoder

# The texts of an example and their losses.
_TEXTS = {
    "caption": "loss_captioning",
    "referring": "loss_referring",
    "grounded": "loss_grounded_captioning",
}


@META_ARCH_REGISTRY.register()
class LocCaModel(CaptioningModel):
    """A CaptioningModel with three texts per image (Wan et al. 2024; SigLIP 2, sec. 2.2).

    They are the caption; the box of a region, given its caption; and the caption of a region, given
    its box. Boxes are whole numbers in the text, and a prompt tells the texts apart. All three go
    through one decoder, and the image through the backbone once. A share of the captions is
    predicted in parallel; regions never are. In evaluation the model captions its images, behind
    the prompt of captions.

    Ours: each text has a loss of its own, a mean over its tokens, and the total is the sum of the
    three; an image without a region in its crop has a caption alone.

    Example:
        >>> import virtex_det as vd
        >>> from virtex_det.modeling import build_model
        >>> keys = {"MODEL.DEVICE": "cpu", "MODEL.TEXTUAL.VOCAB_SIZE": 80}  # a tokenizer has it
        >>> model = build_model(vd.load_config("pretrain/scenes_locca.yaml", keys))
        >>> caption, labels = torch.tensor([1, 9, 7, 8, 2]), torch.tensor([0, 0, 7, 8, 2])
        >>> texts = {"caption_tokens": caption, "caption_labels": labels}  # token 9 is the prompt
        >>> losses = model([{"image": torch.zeros(3, 64, 64)} | texts])
        >>> [*losses]
        ['loss_captioning', 'loss_referring', 'loss_grounded_captioning']
    """

    mapper = "RegionMapper"
    other_mappers = ()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the arguments of the constructor.

        Raises:
            UserError: the tokenizer cannot be read, or the decoder would forget the prompt.
        """
        decoder = build_caption_decoder(cfg, read_caption_prompt(cfg))
        return super().from_config(cfg) | {"decoder": decoder}

    def caption_losses(
        self, batched_inputs: Sequence[dict[str, Any]], memory: Tensor
    ) -> dict[str, TargetLosses]:
        """Return the losses of the three texts; in evaluation, of those that any example has.

        Args:
            batched_inputs: examples with "caption_tokens" (L,) and "caption_labels" (L,), and where
                they have a region likewise "referring_..." and "grounded_...", as RegionMapper
                makes them; or several such dicts in "by_caption".
            memory: (images, cells, hidden), `textual.project` of the image grid.
        """
        captioned, images = self.captions_of(batched_inputs)
        in_parallel = self.draw_parallel(len(batched_inputs))
        never = torch.zeros_like(in_parallel)
        losses = {}
        for text, name in _TEXTS.items():
            having = [
                number for number, caption in enumerate(captioned) if f"{text}_tokens" in caption
            ]
            if having or self.training:
                losses[name] = self._losses(
                    text,
                    [captioned[number] for number in having],
                    images[having],
                    memory,
                    in_parallel if text == "caption" else never,
                )
        return losses

    def _losses(
        self,
        text: str,
        captioned: Sequence[dict[str, Any]],
        images: Tensor,
        memory: Tensor,
        in_parallel: Tensor,
    ) -> TargetLosses:
        """Return the losses of one text.

        Args:
            text: a key of _TEXTS.
            captioned: the captions that have this text.
            images: (captions,), the index of each one's image.
            memory: as for `caption_losses`.
            in_parallel: bool, for each image.
        """
        if not captioned:
            return TargetLosses(memory.new_zeros(0), images)
        losses = token_losses(
            self.textual,
            self.on_device(captioned, f"{text}_tokens"),
            memory[images],
            in_parallel[images],
            self.on_device(captioned, f"{text}_labels"),
        )
        return TargetLosses(losses.values, images[losses.images])
