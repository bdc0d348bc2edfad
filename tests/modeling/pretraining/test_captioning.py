"""Captioning in one direction and both: equal to the authors' implementation, usable in Detectron2;
parallel prediction by its formula.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.golden import (
    BICAPTIONING,
    CAPTIONING,
    FULL_SIZE,
    assert_same_visual_features,
    golden,
    golden_examples,
    golden_model,
    mean_losses,
)
from tests.modeling.pretraining.conftest import (
    assert_a_few_steps_lower_the_loss,
    assert_every_parameter_learns,
    images,
    with_targets,
)
from virtex_det.modeling import TransformerDecoderTextualHead
from virtex_det.modeling.textual.generation import Generated, beam_search

CAPTIONS = [[1, 5, 9, 7, 2], [1, 6, 2], [1, 2]]


@pytest.fixture(
    scope="module",
    params=[
        *CAPTIONING,
        BICAPTIONING,
        *(pytest.param(n, marks=pytest.mark.slow) for n in FULL_SIZE),
    ],
)
def authors(request):
    """Each of the authors' captioning models in turn: their results, our model, and its results."""
    model, examples = golden_model(request.param), golden_examples(request.param)
    with torch.no_grad():
        return SimpleNamespace(
            name=request.param,
            case=golden(request.param),
            model=model,
            grid=model.visual_grid(examples),
            outputs=model(examples),
        )


def test_visual_features_are_the_authors(authors):
    assert_same_visual_features(authors.name, authors.grid)


def test_losses_are_the_authors(authors):
    losses = mean_losses(authors.outputs)
    components = {f"loss_{name}": loss for name, loss in authors.case["loss_components"].items()}
    assert losses == pytest.approx(components, rel=1e-4)
    assert sum(losses.values()) == pytest.approx(authors.case["loss"], rel=1e-4)


@torch.no_grad()
def test_the_most_probable_next_tokens_are_the_authors(authors):
    head = authors.model.textual
    features = head(torch.tensor(authors.case["tokens"]), head.project(authors.grid))
    predicted = head.output(features).argmax(dim=-1)
    for ours, theirs, length in zip(
        predicted.tolist(), authors.case["argmax"], authors.case["lengths"], strict=True
    ):
        assert ours[:length] == theirs[:length]


@torch.no_grad()
def test_all_beams_are_the_authors(authors):
    head, theirs = authors.model.textual, authors.case["beam_all"]
    tokens, log_probabilities = beam_search(
        head, head.project(authors.grid), beam_size=5, keep_start=False
    )
    assert tokens.tolist() == theirs["tokens"]
    torch.testing.assert_close(
        log_probabilities, torch.tensor(theirs["logprobs"]), rtol=1e-4, atol=0
    )


def test_captions_are_the_authors_best_beams_without_boundaries(authors):
    for output, theirs in zip(authors.outputs, authors.case["beam_search"], strict=True):
        assert output["caption_tokens"].tolist() == [token for token in theirs if token > 2]


@pytest.fixture
def model(build) -> nn.Module:
    return build("BicaptioningModel")


def batch():
    return with_targets("caption_tokens", CAPTIONS)


def test_losses_are_means_over_the_tokens_that_follow_another(model):
    model.backbone.eval()
    losses = model(batch())
    assert list(losses) == ["loss_captioning_forward", "loss_captioning_backward"]
    for head, flip, loss in zip(
        (model.textual, model.backward_textual), (False, True), losses.values(), strict=True
    ):
        total, count = 0.0, 0
        for example in batch():
            tokens = example["caption_tokens"].flip(0) if flip else example["caption_tokens"]
            features = head(tokens[None, :-1], head.project(model.visual_grid([example])))
            total += F.cross_entropy(head.output(features[0]), tokens[1:], reduction="sum").item()
            count += len(tokens) - 1
        assert loss.item() == pytest.approx(total / count, rel=1e-5)


def test_losses_in_evaluation_are_sums_and_numbers_of_tokens(model):
    outputs = model.eval()(batch())
    assert [float(output["losses"]["loss_captioning_forward"][1]) for output in outputs] == [
        4,
        2,
        1,
    ]
    for example, output in zip(batch(), outputs, strict=True):
        (alone,) = model([example])
        for name, loss in output["losses"].items():
            torch.testing.assert_close(loss, alone["losses"][name])


def test_an_unknown_token_is_no_target_but_the_caption_goes_on(model):
    (example, *_), tokens = batch(), torch.tensor([1, 5, 0, 7, 2])
    (output,) = model.eval()([{**example, "caption_tokens": tokens}])
    features = model.textual(tokens[None, :-1], model.textual.project(model.visual_grid([example])))
    expected = F.cross_entropy(
        model.textual.output(features[0]), tokens[1:], ignore_index=0, reduction="sum"
    )
    torch.testing.assert_close(
        output["losses"]["loss_captioning_forward"], torch.stack([expected, torch.tensor(3.0)])
    )


def test_one_direction_is_the_forward_half_of_both(build):
    both, forward = build("BicaptioningModel").eval(), build("CaptioningModel").eval()
    found = forward.load_state_dict(both.state_dict(), strict=False)
    assert not found.missing_keys and all(
        name.startswith("backward_textual.") for name in found.unexpected_keys
    )
    losses = forward(batch())[0]["losses"]
    assert list(losses) == ["loss_captioning_forward"]
    torch.testing.assert_close(losses, {name: both(batch())[0]["losses"][name] for name in losses})


def test_both_directions_share_all_but_the_transformer(model):
    shared = {n for n, _ in model.named_parameters(remove_duplicate=False)} - {
        n for n, _ in model.named_parameters()
    }
    assert {name.split(".")[1] for name in shared if name.startswith("backward_")} == {
        "visual_projection",
        "embedding",
        "output",
    }
    forward, backward = model.textual.transformer, model.backward_textual.transformer
    assert all(a is not b for a, b in zip(forward.parameters(), backward.parameters(), strict=True))


def test_the_image_is_projected_once_for_both_directions(model):
    calls = []
    model.textual.visual_projection.register_forward_hook(lambda *_: calls.append(1))
    model(batch())
    assert len(calls) == 1


def test_the_vocabulary_is_computed_only_where_there_is_a_target(model):
    shapes = []
    model.textual.output.register_forward_hook(
        lambda module, inputs, output: shapes.append(tuple(output.shape))
    )
    model(batch())
    assert shapes == [(7, 40), (7, 40)]


@pytest.mark.parametrize("name", ["CaptioningModel", "BicaptioningModel"])
def test_every_parameter_learns(build, name):
    assert_every_parameter_learns(build(name), batch())


def test_a_few_steps_lower_the_loss(model):
    assert_a_few_steps_lower_the_loss(model, batch())


def test_plain_images_are_captioned_and_have_no_losses(build):
    model = build("BicaptioningModel", "MODEL.TEXTUAL.DECODING.METHOD", "beam_search").eval()
    outputs, captioned = model(images()), model(batch())
    for output, expected in zip(outputs, captioned, strict=True):
        assert set(output) == {"caption_tokens", "log_probability"}
        assert set(expected) == {"caption_tokens", "log_probability", "losses"}
        assert torch.equal(output["caption_tokens"], expected["caption_tokens"])
        assert isinstance(output["log_probability"], float)


def test_a_caption_is_the_best_one_without_special_tokens(model):
    def decode(head, memory):
        assert head is model.textual and memory.shape == (3, 4, 16)
        best, other = [1, 9, 0, 8, 2, 2], [7, 7, 7, 7, 7, 7]
        return Generated(torch.tensor([[best, other]] * 3), torch.tensor([[-1.5, -2.0]] * 3))

    model.decoder = decode
    for output in model.eval()(images()):
        assert output["caption_tokens"].tolist() == [9, 8] and output["log_probability"] == -1.5


def test_without_a_decoder_there_are_only_losses(model):
    model.eval()
    assert [set(output) for output in model(batch())] == [{"losses"}] * 3
    assert model(images()) == [{}] * 3


def test_the_head_is_built_from_the_config(model):
    assert isinstance(model.textual, TransformerDecoderTextualHead)
    assert model.textual.visual_projection.in_features == 64
    assert model.textual.output.out_features == 40


PARALLEL = ("MODEL.TEXTUAL.PARALLEL_FRACTION", 0.5)
SEED = 0
# Whether the draws of this seed are below one half: of three captions forwards, then backwards.
DRAWN = ([True, False, True], [True, True, False])


def caption_loss(
    head: TransformerDecoderTextualHead, grid: Tensor, tokens: Tensor, in_parallel: bool
) -> Tensor:
    """Return the cross-entropy summed over the tokens of one caption."""
    memory = head.project(grid[None])
    features = (
        head.in_parallel(memory, len(tokens) - 1)
        if in_parallel
        else head(tokens[None, :-1], memory)
    )
    return F.cross_entropy(head.output(features[0]), tokens[1:], reduction="sum")


def test_the_seed_of_the_step_draws_the_captions_to_predict_in_parallel(build):
    model = build("BicaptioningModel", *PARALLEL)
    torch.manual_seed(SEED)
    draws = torch.rand(3), torch.rand(3)
    assert tuple((each < 0.5).tolist() for each in draws) == DRAWN
    grid = model.visual_grid(batch())
    torch.manual_seed(SEED)
    losses = model(batch())
    for head, flip, drawn, loss in zip(
        (model.textual, model.backward_textual), (False, True), DRAWN, losses.values(), strict=True
    ):
        total = torch.zeros(())
        for number, caption in enumerate(CAPTIONS):
            tokens = torch.tensor(caption[::-1] if flip else caption)
            total = total + caption_loss(head, grid[number], tokens, drawn[number])
        torch.testing.assert_close(loss, total / 7)


@pytest.mark.parametrize("name", ["CaptioningModel", "BicaptioningModel"])
def test_all_captions_in_parallel_come_from_the_image_alone(build, name):
    model = build(name, "MODEL.TEXTUAL.PARALLEL_FRACTION", 1.0)
    losses = model(batch())
    heads = [model.textual, *([model.backward_textual] if name == "BicaptioningModel" else [])]
    grid = model.visual_grid(batch())
    for head, step, loss in zip(heads, (1, -1), losses.values(), strict=False):
        sums = [
            caption_loss(head, grid[number], torch.tensor(caption[::step]), True)
            for number, caption in enumerate(CAPTIONS)
        ]
        torch.testing.assert_close(loss, sum(sums) / 7)


def test_in_evaluation_no_caption_is_predicted_in_parallel(build):
    parallel = build("CaptioningModel", "MODEL.TEXTUAL.PARALLEL_FRACTION", 1.0).eval()
    plain = build("CaptioningModel", "MODEL.TEXTUAL.PARALLEL_FRACTION", 0.0).eval()
    assert [*parallel.state_dict()] == [*plain.state_dict()]
    torch.testing.assert_close(parallel(batch()), plain(batch()), rtol=0, atol=0)


def test_a_model_that_predicts_in_parallel_too_learns_and_writes_captions(build):
    options = ("MODEL.TEXTUAL.DECODING.METHOD", "beam_search")
    model = build("CaptioningModel", "MODEL.TEXTUAL.PARALLEL_FRACTION", 0.75, *options)
    assert_every_parameter_learns(model, batch())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        torch.manual_seed(step)
        optimizer.zero_grad()
        sum(model(batch()).values()).backward()
        optimizer.step()
    model.backbone.train()  # batch norm of the batch that it has learned
    model.training = False
    written = [output["caption_tokens"].tolist() for output in model(batch())]
    assert written == [caption[1:-1] for caption in CAPTIONS]


def test_mixed_precision_gives_the_parallel_losses_of_full_precision(build):
    model = build("BicaptioningModel", *PARALLEL)
    torch.manual_seed(SEED)
    full = model(batch())
    torch.manual_seed(SEED)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch())
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.01, check_dtype=False)
    sum(mixed.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
