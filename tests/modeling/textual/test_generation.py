"""Caption generation: equal to a plain search that recomputes everything, and true to its rules."""

import pytest
import torch
from torch import Tensor

from virtex_det import get_cfg
from virtex_det.errors import UserError
from virtex_det.modeling.textual import TransformerDecoderTextualHead
from virtex_det.modeling.textual.generation import (
    END,
    START,
    Generated,
    beam_search,
    build_caption_decoder,
    nucleus_sampling,
)

VOCABULARY, STEPS = 20, 8
BOTH_WAYS = pytest.mark.parametrize(
    "keep_start", [True, False], ids=["start kept", "start at first only"]
)


def build_head(
    norm_first: bool = False, num_layers: int = 2, dropout: float = 0.0
) -> TransformerDecoderTextualHead:
    torch.manual_seed(0)
    head = TransformerDecoderTextualHead(
        visual_feature_size=8,
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_layers=num_layers,
        attention_heads=4,
        feedforward_size=32,
        dropout=dropout,
        norm_first=norm_first,
        init_std=0.3,
        max_length=STEPS,
    )
    return head.double().eval()


def build_memory(images: int = 5) -> Tensor:
    return 2 * torch.randn(images, 6, 16, generator=torch.Generator().manual_seed(1)).double()


@torch.no_grad()
def log_probabilities(
    head: TransformerDecoderTextualHead, memory: Tensor, tokens: list[int], keep_start: bool = True
) -> Tensor:
    """What follows these tokens, computed from all of them."""
    seen = [START, *tokens] if keep_start or not tokens else tokens
    return head.output(head(torch.tensor([seen]), memory[None])[0, -1]).log_softmax(dim=0)


def search_plainly(
    head: TransformerDecoderTextualHead, memory: Tensor, beam_size: int, keep_start: bool
) -> list[tuple[list[int], float]]:
    """Beam search in one image, its captions padded with [EOS]."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    for _ in range(STEPS):
        candidates = []
        for tokens, score in beams:
            if tokens[-1:] == [END]:
                candidates.append(([*tokens, END], score))
                continue
            values = log_probabilities(head, memory, tokens, keep_start)
            values[tokens[-1:]] = -torch.inf
            best, following = values.topk(2 if tokens else beam_size)
            candidates += [
                ([*tokens, t], score + v)
                for t, v in zip(following.tolist(), best.tolist(), strict=True)
            ]
        beams = sorted(candidates, key=lambda candidate: -candidate[1])[:beam_size]
    return beams


def own_score(head: TransformerDecoderTextualHead, memory: Tensor, caption: list[int]) -> float:
    """The model's log-probability of a caption up to its [EOS]."""
    end = caption.index(END) + 1 if END in caption else len(caption)
    return sum(log_probabilities(head, memory, caption[:n])[caption[n]].item() for n in range(end))


@BOTH_WAYS
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
def test_beam_search_finds_what_a_plain_search_finds(
    norm_first: bool, num_layers: int, keep_start: bool
) -> None:
    head, memory = build_head(norm_first, num_layers), build_memory()
    found = beam_search(head, memory, beam_size=3, max_steps=STEPS, keep_start=keep_start)
    assert found.tokens.dtype == torch.int64 and found.tokens.shape == (5, 3, STEPS)
    for image, tokens, scores in zip(memory, *found, strict=True):
        expected = search_plainly(head, image, 3, keep_start)
        assert tokens.tolist() == [caption for caption, _ in expected]
        assert scores.tolist() == pytest.approx([score for _, score in expected])
    assert len((found.tokens != END).sum(dim=2).unique()) > 2, "captions end at different steps"


@pytest.mark.parametrize("write", [beam_search, nucleus_sampling])
def test_the_start_token_is_kept_unless_told_otherwise(write) -> None:
    def scores(**settings: bool) -> Tensor:
        torch.manual_seed(0)
        return write(build_head(), build_memory(), **settings).log_probabilities

    assert torch.equal(scores(), scores(keep_start=True))
    assert not torch.equal(scores(), scores(keep_start=False))


def test_a_beam_of_one_is_greedy() -> None:
    head, memory = build_head(), build_memory()
    found = beam_search(head, memory, beam_size=1, max_steps=STEPS)
    for image, (caption,) in zip(memory, found.tokens.tolist(), strict=True):
        for n, token in enumerate(caption):
            values = log_probabilities(head, image, caption[:n])
            values[caption[max(n - 1, 0) : n]] = -torch.inf
            assert token == (END if END in caption[:n] else values.argmax())


def test_an_unknown_token_may_be_part_of_a_caption() -> None:
    head, memory = build_head(), build_memory()
    head.output.bias.data[0] += 4
    found = beam_search(head, memory, beam_size=3, max_steps=STEPS)
    assert (found.tokens[:, 0, 1:-1] == 0).sum() > 5
    expected = [search_plainly(head, image, 3, keep_start=True)[0][0] for image in memory]
    assert found.tokens[:, 0].tolist() == expected


@pytest.mark.parametrize("write", [beam_search, nucleus_sampling])
def test_log_probabilities_are_the_models_own(write) -> None:
    head, memory = build_head(), build_memory()
    head.output.bias.data[END] += 2
    for image, tokens, scores in zip(memory, *write(head, memory, max_steps=STEPS), strict=True):
        assert scores.tolist() == pytest.approx(
            [own_score(head, image, caption) for caption in tokens.tolist()]
        )


def test_the_best_caption_comes_first() -> None:
    scores = beam_search(build_head(), build_memory()).log_probabilities
    assert torch.equal(scores, scores.sort(descending=True).values)


@pytest.mark.parametrize("write", [beam_search, nucleus_sampling])
def test_only_the_end_follows_itself(write) -> None:
    head = build_head()
    head.output.bias.data[END] += 1
    tokens = write(head, build_memory(20)).tokens
    repeated = tokens[:, :, 1:] == tokens[:, :, :-1]
    assert (tokens[:, :, 1:][repeated] == END).all() and repeated.any()
    assert repeated[tokens[:, :, :-1] == END].all()


def test_it_stops_when_every_caption_of_every_image_has_ended() -> None:
    head, memory = build_head(), build_memory()
    head.output.bias.data[END] += 100
    assert beam_search(head, memory, beam_size=3).tokens.shape == (5, 3, 2)
    assert beam_search(head, memory, beam_size=1).tokens.shape == (5, 1, 1)
    assert nucleus_sampling(head, memory).tokens.tolist() == [[[END]]] * 5


def test_captions_are_no_longer_than_the_limit_or_the_positions() -> None:
    head, memory = build_head(), build_memory()
    head.output.bias.data[END] -= 100
    assert beam_search(head, memory, max_steps=3).tokens.shape[2] == 3
    assert beam_search(head, memory, max_steps=STEPS + 5).tokens.shape[2] == STEPS


def test_samples_depend_on_the_generator_alone() -> None:
    head, memory = build_head(), build_memory()

    def sample(seed: int) -> Generated:
        return nucleus_sampling(head, memory, generator=torch.Generator().manual_seed(seed))

    first, again, other = sample(5), sample(5), sample(6)
    assert torch.equal(first.tokens, again.tokens) and torch.equal(
        first.log_probabilities, again.log_probabilities
    )
    assert not torch.equal(first.tokens, other.tokens)


@BOTH_WAYS
@pytest.mark.parametrize("nucleus_size", [0.3, 0.8])
def test_no_sample_leaves_the_nucleus(nucleus_size: float, keep_start: bool) -> None:
    head, memory = build_head(), build_memory(40)
    head.output.bias.data[END] -= 100
    found = nucleus_sampling(
        head, memory, nucleus_size=nucleus_size, max_steps=STEPS, keep_start=keep_start
    )
    for image, (caption,) in zip(memory, found.tokens.tolist(), strict=True):
        for n, token in enumerate(caption):
            values = log_probabilities(head, image, caption[:n], keep_start)
            values[caption[max(n - 1, 0) : n]] = -torch.inf
            probabilities = values.softmax(dim=0)
            assert probabilities[probabilities > probabilities[token]].sum() < nucleus_size


@pytest.mark.parametrize("nucleus_size", [0.5, 0.9, 1.0])
def test_samples_are_distributed_as_the_nucleus(nucleus_size: float) -> None:
    head, memory = build_head(), build_memory(1)
    draws = nucleus_sampling(
        head, memory.expand(20000, -1, -1), nucleus_size=nucleus_size, max_steps=1
    ).tokens
    frequencies = draws.flatten().bincount(minlength=VOCABULARY) / 20000
    probabilities, order = log_probabilities(head, memory[0], []).exp().sort(descending=True)
    size = int((probabilities.cumsum(dim=0) < nucleus_size - 1e-9).sum()) + 1
    expected = torch.zeros(VOCABULARY).double()
    expected[order[:size]] = probabilities[:size] / probabilities[:size].sum()
    torch.testing.assert_close(frequencies.double(), expected, atol=0.015, rtol=0)


@pytest.mark.parametrize("write", [beam_search, nucleus_sampling])
def test_no_gradient_and_no_dropout(write) -> None:
    head, memory = build_head(dropout=0.5).train(), build_memory().requires_grad_()
    torch.manual_seed(0)
    training = write(head, memory)
    torch.manual_seed(0)
    evaluation = write(head.eval(), memory)
    assert not training.log_probabilities.requires_grad
    assert torch.equal(training.tokens, evaluation.tokens)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("write", [beam_search, nucleus_sampling])
def test_log_probabilities_have_the_models_precision(write, dtype: torch.dtype) -> None:
    head, memory = build_head().to(dtype), build_memory().to(dtype)
    assert write(head, memory).log_probabilities.dtype == dtype


@pytest.mark.parametrize("write", [beam_search, nucleus_sampling])
def test_log_probabilities_of_a_bf16_model_are_not_rounded_to_bf16(write) -> None:
    scores = write(
        build_head().bfloat16(), build_memory().bfloat16(), max_steps=1
    ).log_probabilities
    assert scores.dtype == torch.float32 and not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("norm_first", [True, False])
def test_under_autocast_log_probabilities_are_near_and_float32(norm_first: bool) -> None:
    head, memory = build_head(norm_first).float(), build_memory().float()
    exact = beam_search(head, memory, max_steps=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = beam_search(head, memory, max_steps=4)
    assert rounded.log_probabilities.dtype == torch.float32
    torch.testing.assert_close(rounded.log_probabilities, exact.log_probabilities, rtol=0.1, atol=0)
    assert not torch.equal(rounded.log_probabilities, exact.log_probabilities)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same() -> None:
    head, memory = build_head(), build_memory()
    expected, found = beam_search(head, memory), beam_search(head.cuda(), memory.cuda())
    assert torch.equal(found.tokens.cpu(), expected.tokens)
    sampled = nucleus_sampling(
        head, memory.cuda(), generator=torch.Generator("cuda").manual_seed(0)
    )
    assert sampled.tokens.is_cuda


@pytest.mark.parametrize("beam_size", [0, VOCABULARY + 1])
def test_a_beam_must_be_of_one_to_all_tokens(beam_size: int) -> None:
    with pytest.raises(UserError, match=rf"is {beam_size}, but must be from 1 to {VOCABULARY}"):
        beam_search(build_head(), build_memory(), beam_size=beam_size)
    assert (
        beam_search(build_head(), build_memory(), beam_size=VOCABULARY).tokens.shape[1]
        == VOCABULARY
    )


@pytest.mark.parametrize("nucleus_size", [0.0, -0.1, 1.1])
def test_a_nucleus_is_a_share(nucleus_size: float) -> None:
    with pytest.raises(UserError, match=f"is {nucleus_size}, but must be above 0 and at most 1"):
        nucleus_sampling(build_head(), build_memory(), nucleus_size=nucleus_size)


@BOTH_WAYS
def test_the_config_says_how_captions_are_written(keep_start: bool) -> None:
    head, memory, cfg = build_head(), build_memory(), get_cfg()
    cfg.MODEL.TEXTUAL.VOCAB_SIZE, cfg.INPUT.CAPTION.MAX_LENGTH = VOCABULARY, 4
    cfg.MODEL.TEXTUAL.DECODING.update(
        {"BEAM_SIZE": 3, "NUCLEUS_SIZE": 0.5, "KEEP_START": keep_start}
    )
    settings = {"max_steps": 4, "keep_start": keep_start}
    found = build_caption_decoder(cfg)(head, memory)
    assert torch.equal(found.tokens, beam_search(head, memory, beam_size=3, **settings).tokens)
    cfg.MODEL.TEXTUAL.DECODING.METHOD = "nucleus_sampling"
    torch.manual_seed(3)
    found = build_caption_decoder(cfg)(head, memory)
    torch.manual_seed(3)
    assert torch.equal(
        found.tokens, nucleus_sampling(head, memory, nucleus_size=0.5, **settings).tokens
    )
    cfg.MODEL.TEXTUAL.DECODING.METHOD = "none"
    assert build_caption_decoder(cfg) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("METHOD", "greedy", "'greedy', but must be 'beam_search'"),
        ("BEAM_SIZE", 30, "is 30, but must be from 1 to 20"),
        ("NUCLEUS_SIZE", 1.5, "is 1.5, but must be above 0"),
    ],
)
def test_a_config_that_cannot_work_is_an_error_at_once(
    key: str, value: object, message: str
) -> None:
    cfg = get_cfg()
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = VOCABULARY
    cfg.MODEL.TEXTUAL.DECODING.METHOD = (
        "nucleus_sampling" if key == "NUCLEUS_SIZE" else "beam_search"
    )
    cfg.MODEL.TEXTUAL.DECODING[key] = value
    with pytest.raises(UserError, match=message):
        build_caption_decoder(cfg)


PROMPT = (5, 7)


@torch.no_grad()
def test_behind_a_prompt_captions_are_those_of_a_plain_search():
    head, memory = build_head(), build_memory()
    tokens, scores = beam_search(head, memory, beam_size=3, max_steps=5, prompt=PROMPT)
    assert tokens.shape[2] <= 5
    for image, (found, score) in enumerate(zip(tokens[:, 0].tolist(), scores[:, 0], strict=True)):
        total, seen = torch.zeros((), dtype=torch.float64), [*PROMPT]
        for token in found[: found.index(END) + 1 if END in found else None]:
            total = total + log_probabilities(head, memory[image], seen)[token]
            seen.append(token)
        torch.testing.assert_close(score, total)


@torch.no_grad()
def test_with_one_beam_each_token_behind_a_prompt_is_the_most_probable_one():
    head, memory = build_head(), build_memory()
    tokens, _ = beam_search(head, memory, beam_size=1, max_steps=5, prompt=PROMPT)
    for image, found in enumerate(tokens[:, 0].tolist()):
        seen = [*PROMPT]
        for number, token in enumerate(found[: found.index(END) + 1 if END in found else None]):
            follows = log_probabilities(head, memory[image], seen)
            if number:
                follows[seen[-1]] = -torch.inf
            assert token == follows.argmax()
            seen.append(token)


@torch.no_grad()
def test_a_prompt_takes_positions_from_the_caption():
    head, memory = build_head(), build_memory()
    assert beam_search(head, memory, prompt=PROMPT).tokens.shape[2] <= STEPS - len(PROMPT)
    drawn = nucleus_sampling(head, memory, prompt=PROMPT)
    assert drawn.tokens.shape[2] <= STEPS - len(PROMPT)


def test_a_decoder_that_would_forget_its_prompt_is_refused():
    cfg = get_cfg()
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = VOCABULARY
    cfg.MODEL.TEXTUAL.DECODING.KEEP_START = False
    assert build_caption_decoder(cfg)
    with pytest.raises(UserError, match=r"prompt.*KEEP_START False\.\nSet it True"):
        build_caption_decoder(cfg, PROMPT)
