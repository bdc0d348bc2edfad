"""Caption generation with a trained textual head: beam search and nucleus sampling, in batches.

Decoding uses a cache: each layer keeps the keys and values of earlier tokens and of the image, and
computes only the newest token of a caption. Results equal the head's `forward` on whole captions.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.data.vocabulary import vocabulary_size
from virtex_det.errors import UserError
from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding
from virtex_det.modeling.textual.transformer_head import TransformerDecoderTextualHead

START, END = 1, 2  # [SOS] and [EOS]
# VirTex's public code has 2, which gives more diverse captions than one continuation per beam.
CONTINUATIONS_PER_BEAM = 2

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Block = Callable[[Tensor], Tensor]


class Generated(NamedTuple):
    """Captions of each image, the most probable first.

    A caption ends with the first [EOS]; all later tokens are [EOS] too. A caption that reached the
    length limit has no [EOS].
    """

    tokens: Tensor  # int64 (images, beams, steps), without the start token
    log_probabilities: Tensor  # (images, beams), sums over the tokens up to [EOS]


def build_caption_decoder(
    cfg: CfgNode, prompt: Sequence[int] = ()
) -> Callable[[TransformerDecoderTextualHead, Tensor], Generated] | None:
    """Return the decoding function of a config; None for MODEL.TEXTUAL.DECODING.METHOD "none".

    Args:
        cfg: the full config.
        prompt: as in `beam_search`.

    Raises:
        UserError: the method is unknown, its size is invalid, or the decoder would forget a prompt.
    """
    decoding = cfg.MODEL.TEXTUAL.DECODING
    settings = {
        "max_steps": cfg.INPUT.CAPTION.MAX_LENGTH,
        "keep_start": decoding.KEEP_START,
        "prompt": prompt,
    }
    if prompt and not decoding.KEEP_START:
        raise UserError(
            f"{cfg.MODEL.META_ARCHITECTURE} writes captions behind a prompt, which the decoder "
            "would forget with MODEL.TEXTUAL.DECODING.KEEP_START False.\nSet it True."
        )
    if decoding.METHOD == "none":
        return None
    if decoding.METHOD == "beam_search":
        _check_beam_size(decoding.BEAM_SIZE, vocabulary_size(cfg))
        return partial(beam_search, beam_size=decoding.BEAM_SIZE, **settings)
    if decoding.METHOD == "nucleus_sampling":
        _check_nucleus_size(decoding.NUCLEUS_SIZE)
        return partial(nucleus_sampling, nucleus_size=decoding.NUCLEUS_SIZE, **settings)
    raise UserError(
        f"MODEL.TEXTUAL.DECODING.METHOD is '{decoding.METHOD}', but must be "
        "'beam_search', 'nucleus_sampling' or 'none'."
    )


def beam_search(
    head: TransformerDecoderTextualHead,
    memory: Tensor,
    *,
    beam_size: int = 5,
    max_steps: int = 30,
    keep_start: bool = True,
    prompt: Sequence[int] = (),
) -> Generated:
    """Return the most probable captions that a beam search finds, by VirTex's rules.

    Each beam offers its two most probable continuations, and the best of all survive. A token may
    not repeat directly, an ended caption keeps its log-probability, and there is no length penalty.

    Args:
        head: the decoder; its dropout is off.
        memory: (images, cells, hidden), from `head.project`.
        beam_size: candidates per image.
        max_steps: longest caption in tokens, [EOS] included; the head's number of positions is
            another limit.
        keep_start: show the decoder the start token at every step, as in training. False: show it
            at the first step only; later the first token has the first position, as in VirTex's
            public code.
        prompt: tokens that stand between start token and caption, and are not returned; needs
            `keep_start`.

    Raises:
        UserError: the beam size is below 1 or above the size of the vocabulary.

    Example:
        >>> from virtex_det.modeling.textual import TransformerDecoderTextualHead
        >>> head = TransformerDecoderTextualHead(8, 20, 16, 1, 2, 32)
        >>> memory = head.project(torch.zeros(2, 8, 7, 7))  # of two images
        >>> beam_search(head, memory, beam_size=3, max_steps=1).tokens.shape
        torch.Size([2, 3, 1])
    """
    _check_beam_size(beam_size, head.output.out_features)
    choose = partial(_choose_best, beam_size=beam_size)
    return _generate(head, memory, choose, beam_size, max_steps, keep_start, prompt)


def nucleus_sampling(
    head: TransformerDecoderTextualHead,
    memory: Tensor,
    *,
    nucleus_size: float = 0.9,
    max_steps: int = 30,
    keep_start: bool = True,
    generator: torch.Generator | None = None,
    prompt: Sequence[int] = (),
) -> Generated:
    """Draw one caption per image, each token from the nucleus (Holtzman et al. 2020, sec. 3.1).

    The nucleus is the smallest set of tokens that holds `nucleus_size` of the probability. The tail
    of the distribution, unreliable but likely in total, is never sampled. A token may not repeat
    directly, as in VirTex; here the repeat is excluded before the nucleus is found, so that a token
    always remains. VirTex's public code always keeps the start token here. Log-probabilities are
    those of the model, not of the nucleus.

    Args:
        head: the decoder; its dropout is off.
        memory: (images, cells, hidden), from `head.project`.
        nucleus_size: probability of the nucleus, in (0, 1]; 1 is plain sampling.
        max_steps: as in `beam_search`.
        keep_start: as in `beam_search`.
        generator: random number generator, on the device of `memory`.
        prompt: as in `beam_search`.

    Raises:
        UserError: the nucleus size is outside (0, 1].
    """
    _check_nucleus_size(nucleus_size)
    choose = partial(_choose_from_nucleus, nucleus_size=nucleus_size, generator=generator)
    return _generate(head, memory, choose, 1, max_steps, keep_start, prompt)


@torch.no_grad()
def _generate(
    head: TransformerDecoderTextualHead,
    memory: Tensor,
    choose: Choose,
    beams: int,
    max_steps: int,
    keep_start: bool,
    prompt: Sequence[int],
) -> Generated:
    """Extend the captions by `choose` until all have ended.

    The test for the end is the only wait for the device in a step.
    """
    given = torch.tensor([START, *prompt], device=memory.device)
    steps = min(max_steps, head.embedding.positions.num_embeddings - len(prompt))
    decoder = _CachedDecoder(head, memory, max_keys=len(given) + beams * (steps - 1))
    captions = given.repeat(len(memory), 1, 1)
    decoder.read(captions[:, :, :-1])
    scores = torch.zeros((len(memory), 1), device=memory.device)
    for step in range(steps):
        newest = captions[:, :, -1]
        # shape: (images, beams, vocabulary)
        log_probabilities = _log_softmax(decoder.logits(newest))
        if step:
            _forbid_repeats(log_probabilities, newest)
        parents, tokens, scores = choose(log_probabilities, scores)
        # shape: (images, beams, given + step + 1)
        captions = torch.cat([_select(captions, parents), tokens.unsqueeze(2)], dim=2)
        if (tokens == END).all():
            break
        decoder.branch(parents, forget=step == 0 and not keep_start)
    return Generated(captions[:, :, len(given) :], scores)


def _choose_best(
    log_probabilities: Tensor, scores: Tensor, beam_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best continuations: parent beams, tokens and scores, each (images, beams)."""
    number = beam_size if log_probabilities.shape[1] == 1 else CONTINUATIONS_PER_BEAM
    # shape: (images, beams, number)
    best, tokens = log_probabilities.topk(number)
    scores, chosen = (scores.unsqueeze(2) + best).flatten(1).topk(beam_size)
    return chosen // number, tokens.flatten(1).gather(1, chosen), scores


def _choose_from_nucleus(
    log_probabilities: Tensor,
    scores: Tensor,
    nucleus_size: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a continuation of each image's only caption; return the same as `_choose_best`."""
    log_probabilities = log_probabilities.squeeze(1)
    probabilities, tokens = log_probabilities.softmax(dim=1).sort(dim=1, descending=True)
    more_probable = probabilities.cumsum(dim=1) - probabilities
    nucleus = probabilities.masked_fill(more_probable >= nucleus_size, 0)
    token = tokens.gather(1, nucleus.multinomial(1, generator=generator))
    return torch.zeros_like(token), token, scores + log_probabilities.gather(1, token)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _forbid_repeats(log_probabilities: Tensor, newest: Tensor) -> None:
    """Forbid direct repeats, in place; only [EOS] may follow [EOS]."""
    ended = newest == END
    log_probabilities.scatter_(2, newest.unsqueeze(2), -torch.inf)
    log_probabilities.masked_fill_(ended.unsqueeze(2), -torch.inf)
    log_probabilities[:, :, END].masked_fill_(ended, 0)


def _select(values: Tensor, parents: Tensor) -> Tensor:
    """Return the values (images, beams, ...) of each caption's parent."""
    return values.take_along_dim(parents.unsqueeze(2), dim=1)


class _CachedDecoder:
    """The head, applied one token at a time to captions that branch.

    A branch copies no cache: the keys of all tokens of an image's captions stay, and `visible`
    marks the tokens that a caption descends from.
    """

    def __init__(self, head: TransformerDecoderTextualHead, memory: Tensor, max_keys: int) -> None:
        self.head = head
        self.layers = [_CachedLayer(layer, memory, max_keys) for layer in head.transformer.layers]
        self.visible = torch.ones((len(memory), 1, 1), dtype=torch.bool, device=memory.device)
        self.position = 0

    def logits(self, newest: Tensor) -> Tensor:
        """Return the logits (images, beams, vocabulary) after the newest tokens (images, beams)."""
        hidden = _embed(self.head.embedding, newest, self.position)
        for layer in self.layers:
            hidden = layer(hidden, self.visible)
        if self.head.transformer.norm is not None:
            hidden = self.head.transformer.norm(hidden)
        return self.head.output(hidden)

    def read(self, tokens: Tensor) -> None:
        """Read tokens (images, 1, length) before the first that something follows."""
        for token in tokens.unbind(2):
            self.logits(token)
            self.branch(torch.zeros_like(token), forget=False)

    def branch(self, parents: Tensor, forget: bool) -> None:
        """Continue the captions of `parents` (images, beams); `forget` drops all earlier tokens."""
        beams = parents.shape[1]
        itself = torch.eye(beams, dtype=torch.bool, device=parents.device)
        # shape: (images, beams, beams)
        itself = itself.expand(len(parents), -1, -1)
        if forget:
            self.visible, self.position = itself, 0
        else:
            self.visible = torch.cat([_select(self.visible, parents), itself], dim=2)
            self.position += 1


class _CachedLayer:
    """A decoder layer that caches the keys and values of the image and of all tokens so far."""

    def __init__(self, layer: nn.TransformerDecoderLayer, memory: Tensor, max_keys: int) -> None:
        self.layer = layer
        attention = layer.multihead_attn
        hidden = memory.shape[2]
        weight, bias = attention.in_proj_weight[hidden:], attention.in_proj_bias[hidden:]
        projected = F.linear(memory, weight, bias)
        # shape: (2, images, heads, cells, head size)
        self.of_image = _split_heads(projected, 2, attention.num_heads).contiguous()
        two, images, heads, _, head_size = self.of_image.shape
        # shape: (2, images, heads, max_keys, head size)
        self.of_tokens = self.of_image.new_empty(two, images, heads, max_keys, head_size)

    def __call__(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Return features (images, beams, hidden) of the newest tokens, the last `visible` keys."""
        layer = self.layer
        read_tokens: Block = partial(self._read_tokens, visible=visible)
        blocks = (read_tokens, self._read_image, self._feed_forward)
        for block, norm in zip(blocks, (layer.norm1, layer.norm2, layer.norm3), strict=True):
            hidden = (
                hidden + block(norm(hidden)) if layer.norm_first else norm(hidden + block(hidden))
            )
        return hidden

    def _read_tokens(self, hidden: Tensor, visible: Tensor) -> Tensor:
        attention, end = self.layer.self_attn, visible.shape[2]
        projected = F.linear(hidden, attention.in_proj_weight, attention.in_proj_bias)
        queries, *of_newest = _split_heads(projected, 3, attention.num_heads)
        self.of_tokens[:, :, :, end - hidden.shape[1] : end] = torch.stack(of_newest)
        return _attend(attention, queries, self.of_tokens[:, :, :, :end], visible.unsqueeze(1))

    def _read_image(self, hidden: Tensor) -> Tensor:
        attention, size = self.layer.multihead_attn, hidden.shape[2]
        projected = F.linear(hidden, attention.in_proj_weight[:size], attention.in_proj_bias[:size])
        return _attend(attention, _split_heads(projected, 1, attention.num_heads)[0], self.of_image)

    def _feed_forward(self, hidden: Tensor) -> Tensor:
        return self.layer.linear2(self.layer.activation(self.layer.linear1(hidden)))


def _embed(embedding: WordAndPositionEmbedding, tokens: Tensor, position: int) -> Tensor:
    """Embed tokens (images, beams) at one position; the embedding's `forward` starts at 0."""
    embedded = embedding.layer_norm(embedding.words(tokens) + embedding.positions.weight[position])
    return embedded * (tokens != embedding.padding_idx).unsqueeze(2)


def _split_heads(projected: Tensor, number: int, heads: int) -> Tensor:
    """Split projections (images, n, number * hidden) into (number, images, heads, n, head size)."""
    return projected.unflatten(2, (number, heads, -1)).permute(2, 0, 3, 1, 4)


def _attend(
    attention: nn.MultiheadAttention,
    queries: Tensor,
    keys_and_values: Tensor,
    visible: Tensor | None = None,
) -> Tensor:
    """Return the attention output (images, n, hidden) of queries (images, heads, n, head size)."""
    keys, values = keys_and_values
    read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible)
    return attention.out_proj(read.transpose(1, 2).flatten(2))


def _check_beam_size(beam_size: int, vocab_size: int) -> None:
    if not 1 <= beam_size <= vocab_size:
        raise UserError(
            f"The beam size (MODEL.TEXTUAL.DECODING.BEAM_SIZE) is {beam_size}, but must be from 1 "
            f"to {vocab_size}, the size of the vocabulary."
        )


def _check_nucleus_size(nucleus_size: float) -> None:
    if not 0 < nucleus_size <= 1:
        raise UserError(
            f"The nucleus size (MODEL.TEXTUAL.DECODING.NUCLEUS_SIZE) is {nucleus_size}, but must "
            "be above 0 and at most 1."
        )
