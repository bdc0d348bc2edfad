"""Writing captions with a trained textual head: beam search and nucleus sampling, a batch of images at a time.

Both give up the repeated work of decoding: a layer keeps the keys and values of earlier tokens and of the image, and
only the newest token of a caption is computed. Results are those of the head's `forward` on whole captions.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from virtex_det.errors import UserError
from virtex_det.modeling.textual.embedding import WordAndPositionEmbedding
from virtex_det.modeling.textual.transformer_head import TransformerDecoderTextualHead

START, END = 1, 2  # [SOS] and [EOS]
CONTINUATIONS_PER_BEAM = 2  # more diverse than as many as there are beams; VirTex's public code has 2

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
Block = Callable[[Tensor], Tensor]


class Generated(NamedTuple):
    """Captions of each image, the most probable first.

    A caption ends with the first [EOS], after which all tokens are [EOS]; one that reached the limit has none.
    """

    tokens: Tensor  # int64 (images, beams, steps), without the start token
    log_probabilities: Tensor  # (images, beams), sums over the tokens up to [EOS]


def build_caption_decoder(cfg: CfgNode) -> Callable[[TransformerDecoderTextualHead, Tensor], Generated] | None:
    """Return what writes captions by the config, None for MODEL.TEXTUAL.DECODING.METHOD "none".

    Raises:
        UserError: an unknown method, or a size that does not fit it.
    """
    decoding = cfg.MODEL.TEXTUAL.DECODING
    settings = {"max_steps": cfg.INPUT.CAPTION.MAX_LENGTH, "keep_start": decoding.KEEP_START}
    if decoding.METHOD == "none":
        return None
    if decoding.METHOD == "beam_search":
        _check_beam_size(decoding.BEAM_SIZE, cfg.MODEL.TEXTUAL.VOCAB_SIZE)
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
) -> Generated:
    """Return the most probable captions that a search with a few candidates per image finds, as VirTex searches.

    Each candidate offers its two most probable continuations, and the best of all go on. A token may not follow itself,
    an ended caption keeps its log-probability, and length is not made up for.

    Args:
        head: the decoder; its dropout does not act.
        memory: (images, cells, hidden), from `head.project`.
        beam_size: candidates per image.
        max_steps: longest caption in tokens, [EOS] included; the head's number of positions is a limit, too.
        keep_start: show the decoder the start token at every step, as in training. False: at the first step only, and
            from then on captions whose first token has the first position, as VirTex's public code does.

    Raises:
        UserError: a beam of no candidate, or of more than there are tokens to start with.
    """
    _check_beam_size(beam_size, head.output.out_features)
    return _generate(head, memory, partial(_choose_best, beam_size=beam_size), beam_size, max_steps, keep_start)


def nucleus_sampling(
    head: TransformerDecoderTextualHead,
    memory: Tensor,
    *,
    nucleus_size: float = 0.9,
    max_steps: int = 30,
    keep_start: bool = True,
    generator: torch.Generator | None = None,
) -> Generated:
    """Draw one caption per image, each token from the fewest that hold a share of the probability.

    The tail of the distribution, unreliable and together likely, is never drawn from (Holtzman et al. 2020, sec. 3.1).
    A token may not follow itself: as in VirTex, but left out before the nucleus is found, so that some token remains.
    VirTex's public code always keeps the start token here. Log-probabilities are the model's own.

    Args:
        head: the decoder; its dropout does not act.
        memory: (images, cells, hidden), from `head.project`.
        nucleus_size: the share, in (0, 1]; 1 is plain sampling.
        max_steps: as in `beam_search`.
        keep_start: as in `beam_search`.
        generator: of random numbers, on the memory's device.

    Raises:
        UserError: a share outside (0, 1].
    """
    _check_nucleus_size(nucleus_size)
    choose = partial(_choose_from_nucleus, nucleus_size=nucleus_size, generator=generator)
    return _generate(head, memory, choose, 1, max_steps, keep_start)


@torch.no_grad()
def _generate(
    head: TransformerDecoderTextualHead, memory: Tensor, choose: Choose, beams: int, max_steps: int, keep_start: bool
) -> Generated:
    """Let `choose` extend the captions until all have ended; seeing that is the one wait for the device in a step."""
    steps = min(max_steps, head.embedding.positions.num_embeddings)
    decoder = _CachedDecoder(head, memory, max_keys=1 + beams * (steps - 1))
    captions = torch.full((len(memory), 1, 1), START, device=memory.device)
    scores = torch.zeros((len(memory), 1), device=memory.device)
    for step in range(steps):
        newest = captions[:, :, -1]
        log_probabilities = _log_softmax(decoder.logits(newest))  # shape: (images, beams, vocabulary)
        if step:
            _forbid_repeats(log_probabilities, newest)
        parents, tokens, scores = choose(log_probabilities, scores)
        captions = torch.cat([_select(captions, parents), tokens.unsqueeze(2)], dim=2)
        if (tokens == END).all():
            break
        decoder.branch(parents, forget=step == 0 and not keep_start)
    return Generated(captions[:, :, 1:], scores)


def _choose_best(log_probabilities: Tensor, scores: Tensor, beam_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best continuations of all beams: which beams they continue, their tokens, their scores."""
    number = beam_size if log_probabilities.shape[1] == 1 else CONTINUATIONS_PER_BEAM
    best, tokens = log_probabilities.topk(number)  # shape: (images, beams, number)
    scores, chosen = (scores.unsqueeze(2) + best).flatten(1).topk(beam_size)
    return chosen // number, tokens.flatten(1).gather(1, chosen), scores


def _choose_from_nucleus(
    log_probabilities: Tensor, scores: Tensor, nucleus_size: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a continuation of each image's one caption; returns the same as `_choose_best`."""
    log_probabilities = log_probabilities.squeeze(1)
    probabilities, tokens = log_probabilities.softmax(dim=1).sort(dim=1, descending=True)
    more_probable = probabilities.cumsum(dim=1) - probabilities
    nucleus = probabilities.masked_fill(more_probable >= nucleus_size, 0)
    token = tokens.gather(1, nucleus.multinomial(1, generator=generator))
    return torch.zeros_like(token), token, scores + log_probabilities.gather(1, token)


def _log_softmax(logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _forbid_repeats(log_probabilities: Tensor, newest: Tensor) -> None:
    """Let no token follow itself but [EOS], which is all that follows [EOS]."""
    ended = newest == END
    log_probabilities.scatter_(2, newest.unsqueeze(2), -torch.inf).masked_fill_(ended.unsqueeze(2), -torch.inf)
    log_probabilities[:, :, END].masked_fill_(ended, 0)


def _select(values: Tensor, parents: Tensor) -> Tensor:
    """Return the values (images, beams, ...) of each caption's parent."""
    return values.take_along_dim(parents.unsqueeze(2), dim=1)


class _CachedDecoder:
    """The head, one token at a time, on captions that branch.

    A branch copies no cache: all tokens that an image's captions ever had stay among its keys, and `visible` says which
    of them each caption descends from.
    """

    def __init__(self, head: TransformerDecoderTextualHead, memory: Tensor, max_keys: int) -> None:
        self.head = head
        self.layers = [_CachedLayer(layer, memory, max_keys) for layer in head.transformer.layers]
        self.visible = torch.ones((len(memory), 1, 1), dtype=torch.bool, device=memory.device)
        self.position = 0

    def logits(self, newest: Tensor) -> Tensor:
        """Return what follows the newest token (images, beams) of each caption: (images, beams, vocabulary)."""
        hidden = _embed(self.head.embedding, newest, self.position)
        for layer in self.layers:
            hidden = layer(hidden, self.visible)
        if self.head.transformer.norm is not None:
            hidden = self.head.transformer.norm(hidden)
        return self.head.output(hidden)

    def branch(self, parents: Tensor, forget: bool) -> None:
        """Go on with captions one token longer than their parents (images, beams); with `forget`, of one token."""
        itself = torch.eye(parents.shape[1], dtype=torch.bool, device=parents.device).expand(len(parents), -1, -1)
        if forget:
            self.visible, self.position = itself, 0
        else:
            self.visible = torch.cat([_select(self.visible, parents), itself], dim=2)
            self.position += 1


class _CachedLayer:
    """A decoder layer that keeps the keys and values of the image and of all tokens so far."""

    def __init__(self, layer: nn.TransformerDecoderLayer, memory: Tensor, max_keys: int) -> None:
        self.layer = layer
        attention = layer.multihead_attn
        weight, bias = attention.in_proj_weight[memory.shape[2] :], attention.in_proj_bias[memory.shape[2] :]
        self.of_image = _split_heads(F.linear(memory, weight, bias), 2, attention.num_heads).contiguous()
        self.of_tokens = self.of_image.new_empty(*self.of_image.shape[:3], max_keys, self.of_image.shape[4])

    def __call__(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Return features of the newest tokens (images, beams, hidden), which are the last of the `visible` keys."""
        layer = self.layer
        read_tokens: Block = partial(self._read_tokens, visible=visible)
        blocks = (read_tokens, self._read_image, self._feed_forward)
        for block, norm in zip(blocks, (layer.norm1, layer.norm2, layer.norm3), strict=True):
            hidden = hidden + block(norm(hidden)) if layer.norm_first else norm(hidden + block(hidden))
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
    """Embed tokens (images, beams) that all have the same position; the embedding's own way starts at the first one."""
    embedded = embedding.layer_norm(embedding.words(tokens) + embedding.positions.weight[position])
    return embedded * (tokens != embedding.padding_idx).unsqueeze(2)


def _split_heads(projected: Tensor, number: int, heads: int) -> Tensor:
    """Turn a number of projections (images, n, number * hidden) into (number, images, heads, n, head size)."""
    return projected.unflatten(2, (number, heads, -1)).permute(2, 0, 3, 1, 4)


def _attend(
    attention: nn.MultiheadAttention, queries: Tensor, keys_and_values: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Return what queries (images, heads, n, head size) read, as (images, n, hidden)."""
    read = F.scaled_dot_product_attention(queries, keys_and_values[0], keys_and_values[1], attn_mask=visible)
    return attention.out_proj(read.transpose(1, 2).flatten(2))


def _check_beam_size(beam_size: int, vocab_size: int) -> None:
    if not 1 <= beam_size <= vocab_size:
        raise UserError(
            f"The beam (MODEL.TEXTUAL.DECODING.BEAM_SIZE) is {beam_size}, but must be from 1 to {vocab_size}, "
            "the number of tokens in the vocabulary."
        )


def _check_nucleus_size(nucleus_size: float) -> None:
    if not 0 < nucleus_size <= 1:
        raise UserError(
            f"The nucleus (MODEL.TEXTUAL.DECODING.NUCLEUS_SIZE) is {nucleus_size}, but must be above 0 and at most 1."
        )
