"""LocTex: its losses by their formulas, its attention, and training without traces."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.modeling.pretraining.conftest import (
    assert_every_parameter_learns,
    draw,
    images,
    with_targets,
)
from tests.modeling.pretraining.test_contrastive import slow_contrastive
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.loctex import (
    LOCALIZATION_LOSSES,
    cell_scores,
    cross_entropy_losses,
    distance_losses,
    mean_over_tokens,
)

# An unknown token, whose id is padding's, and captions of several lengths.
CAPTIONS = [[1, 9, 0, 7, 2], [1, 6, 2], [1, 5, 8, 2], [1, 11, 2]]
# Token, x, y: two cells of one token, twice the same one, a token of another image, an image
# without any.
POINTS = [
    [(1, 0.1, 0.1), (1, 0.9, 0.1), (3, 0.2, 0.9)],
    [(1, 0.6, 0.6), (1, 0.7, 0.7)],
    [],
    [(1, 0.4, 0.9)],
]

SMALL = (
    *("MODEL.TEXTUAL.HIDDEN_SIZE", 16, "MODEL.TEXTUAL.ATTENTION_HEADS", 2),
    *("MODEL.TEXTUAL.FEEDFORWARD_SIZE", 32, "MODEL.TEXTUAL.NUM_LAYERS", 1),
    *("MODEL.TEXTUAL.DROPOUT", 0.0),
    *("MODEL.LOCTEX.EMBED_SIZE", 12, "MODEL.LOCTEX.LOCALIZATION_WEIGHT", 0.7),
)
TWO_FEATURES = (
    *("MODEL.RESNETS.OUT_FEATURES", ["res4", "res5"]),
    *("MODEL.LOCTEX.LOCALIZATION_FEATURES", ("res5", "res4")),
)
CROSS_ENTROPY = ("MODEL.LOCTEX.LOCALIZATION_LOSS", "cross_entropy")
WITHOUT_TRACES = ("MODEL.LOCTEX.LOCALIZATION_WEIGHT", 0.0)


def batch():
    points = [torch.tensor(each, dtype=torch.float32).reshape(-1, 3) for each in POINTS]
    captioned = with_targets("caption_tokens", CAPTIONS)
    return [
        example | {"trace_points": each} for example, each in zip(captioned, points, strict=True)
    ]


@pytest.fixture
def model(build) -> nn.Module:
    return build("LocTexModel", *SMALL)


def with_fixed_norms(model: nn.Module) -> nn.Module:
    """Let batch norms keep the statistics of the whole batch: no image then depends on the
    others.
    """
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    model.visual_features(batch())
    model.backbone.eval()
    return model


def numpy_attention(token: Tensor, cells: Tensor) -> np.ndarray:
    """The softmax of a token's dot products with each of the cells (rows, columns, size)."""
    products = cells.detach().numpy() @ token.detach().numpy() / len(token) ** 0.5
    shares = np.exp(products - products.max())
    return shares / shares.sum()


def numpy_distance(attended: np.ndarray, mask: np.ndarray) -> float:
    """The squared distance of the unit vectors of attention and mask."""
    apart = attended / np.sqrt((attended**2).sum()) - mask / np.sqrt(mask.sum())
    return float((apart**2).sum())


def numpy_cross_entropy(attended: np.ndarray, mask: np.ndarray) -> float:
    """Minus the mean logarithm of the attention to the mask's cells."""
    return float(-np.log(attended[mask]).mean())


NUMPY_LOSSES = {"distance": numpy_distance, "cross_entropy": numpy_cross_entropy}


@pytest.mark.parametrize("name", LOCALIZATION_LOSSES)
def test_the_losses_on_attention_are_those_of_the_formulas(name):
    tokens, cells = draw(1, 2, 4), draw(1, 2, 3, 4, seed=1)
    masks = torch.tensor([[[[1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, 0, 1]]]], dtype=torch.bool)
    expected = [
        NUMPY_LOSSES[name](numpy_attention(tokens[0, token], cells[0]), masks[0, token].numpy())
        for token in range(2)
    ]
    found = LOCALIZATION_LOSSES[name](cell_scores(tokens, cells), masks)
    assert found.tolist() == [pytest.approx(expected)]


def test_attention_like_the_mask_costs_nothing_and_apart_from_it_two():
    masks = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 1]]], dtype=torch.bool)
    scores = torch.where(masks, 0.0, -100.0)
    torch.testing.assert_close(distance_losses(scores, masks), torch.zeros(2))
    torch.testing.assert_close(distance_losses(scores, masks.flip(0)), torch.full((2,), 2.0))


def test_the_cross_entropy_is_least_where_attention_has_equal_shares_of_the_mask():
    masks = torch.tensor([[[1, 1], [0, 0]], [[0, 0], [0, 1]]], dtype=torch.bool)
    like_the_mask = cross_entropy_losses(torch.where(masks, 0.0, -100.0), masks)
    torch.testing.assert_close(like_the_mask, torch.tensor([2.0, 1.0]).log())
    lopsided = torch.tensor([[[1.0, 0.0], [-100.0, -100.0]]])
    assert cross_entropy_losses(lopsided, masks[:1]) > like_the_mask[0]


def test_the_cross_entropy_stays_finite_however_far_attention_is_from_the_mask():
    masks = torch.tensor([[[True, False]]])
    scores = torch.tensor([[[-1e4, 1e4]]], requires_grad=True)
    loss = cross_entropy_losses(scores, masks)
    loss.sum().backward()
    assert loss.item() == 2e4 and scores.grad.tolist() == [[[-1, 1]]]


def test_the_cross_entropy_of_half_precision_scores_is_computed_in_full_precision():
    masks = torch.ones(1, 1, 7, dtype=torch.bool)
    found = cross_entropy_losses(torch.zeros(1, 1, 7, dtype=torch.bfloat16), masks)
    torch.testing.assert_close(found, torch.tensor([7.0]).log())


def test_gradients_are_those_of_finite_differences():
    masks = torch.rand(2, 2, 2, 2, generator=torch.Generator().manual_seed(0)) > 0.5
    grids = (draw(2, 2, 3).requires_grad_(), draw(2, 2, 2, 3, seed=1).requires_grad_())
    padding = torch.tensor([[False, False], [False, True]])
    for losses in LOCALIZATION_LOSSES.values():
        assert torch.autograd.gradcheck(
            lambda *vectors, losses=losses: losses(cell_scores(*vectors), masks), grids
        )
    assert torch.autograd.gradcheck(lambda vectors: mean_over_tokens(vectors, padding), grids[:1])


def test_the_mean_over_tokens_leaves_padding_out_whatever_stands_there():
    vectors = torch.tensor([[[1.0], [3.0], [torch.nan]], [[5.0], [torch.inf], [0.0]]])
    padding = torch.tensor([[False, False, True], [False, True, True]])
    assert mean_over_tokens(vectors, padding).tolist() == [[2], [5]]


def alone(model: nn.Module, example: dict) -> tuple[dict[str, Tensor], Tensor]:
    """The feature maps of one example and the vectors of its tokens, which nothing pads."""
    tokens = example["caption_tokens"][None]
    features = model.visual_features([example])
    return {name: grid[0] for name, grid in features.items()}, model.text_encoder(
        tokens, tokens < 0
    )[0]


def expected_localization(model: nn.Module, example: dict, level: str, loss: str) -> list[float]:
    """The loss of each token that has points, on one feature map."""
    features, text = alone(model, example)
    cells = model.cell_embeddings[level](features[level].permute(1, 2, 0))
    masks: dict[int, np.ndarray] = {}
    for token, x, y in example["trace_points"].tolist():
        mask = masks.setdefault(int(token), np.zeros(cells.shape[:2], dtype=bool))
        mask[int(y * len(cells)), int(x * len(cells))] = True
    embedded = model.token_embedding(text)
    return [
        NUMPY_LOSSES[loss](numpy_attention(embedded[token], cells), mask)
        for token, mask in masks.items()
    ]


@pytest.mark.parametrize("loss", LOCALIZATION_LOSSES)
def test_the_models_losses_are_those_of_the_formulas_caption_by_caption(build, loss):
    options = (*SMALL, *TWO_FEATURES, "MODEL.LOCTEX.LOCALIZATION_LOSS", loss)
    model = with_fixed_norms(build("LocTexModel", *options))
    pairs = [alone(model, example) for example in batch()]
    found = model(batch())
    assert list(found) == ["loss_contrastive", "loss_localization"]
    image_features = [
        model.image_projection(features["res5"].mean(dim=(1, 2))) for features, _ in pairs
    ]
    caption_features = [model.caption_projection(text.mean(dim=0)) for _, text in pairs]
    contrastive = slow_contrastive(torch.stack(image_features), torch.stack(caption_features), 0.1)
    torch.testing.assert_close(found["loss_contrastive"], contrastive.mean(), rtol=1e-4, atol=1e-5)
    by_image = []
    for example in batch():
        coarse = expected_localization(model, example, "res5", loss)
        fine = expected_localization(model, example, "res4", loss)
        by_image.append([sum(both) for both in zip(coarse, fine, strict=True)])
    assert [len(losses) for losses in by_image] == [2, 1, 0, 1]
    localization = 0.7 * sum(map(sum, by_image)) / 4
    assert found["loss_localization"].item() == pytest.approx(localization, rel=1e-4)
    for losses, output in zip(by_image, model.eval()(batch()), strict=True):
        expected = [0.7 * sum(losses), len(losses)]
        assert output["losses"]["loss_localization"].tolist() == pytest.approx(expected, rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("options", [(), TWO_FEATURES, WITHOUT_TRACES])
def test_each_tokens_attention_sums_to_one_and_padding_makes_no_difference(build, options):
    model = with_fixed_norms(build("LocTexModel", *SMALL, *options)).eval()
    size = 4 if options == TWO_FEATURES else 2
    for example, output in zip(batch(), model(batch()), strict=True):
        attention = output["attention"]
        assert (
            attention.shape == (len(example["caption_tokens"]), size, size)
            and attention.dtype == torch.float32
        )
        torch.testing.assert_close(attention.sum(dim=(1, 2)), torch.ones(len(attention)))
        torch.testing.assert_close(
            attention, model([example])[0]["attention"], rtol=1e-3, atol=1e-5
        )


def test_without_localisation_no_trace_is_needed_and_no_weight_is_idle(build):
    model = build("LocTexModel", *SMALL, *WITHOUT_TRACES)
    assert list(model(with_targets("caption_tokens", CAPTIONS))) == ["loss_contrastive"]
    assert_every_parameter_learns(model, with_targets("caption_tokens", CAPTIONS))


def test_with_localisation_an_example_needs_its_trace(model):
    with pytest.raises(UserError, match=r"NarrativeMapper.*\n?.*LOCALIZATION_WEIGHT 0"):
        model(with_targets("caption_tokens", CAPTIONS))
    with pytest.raises(UserError, match="DATALOADER.MAPPER empty, or set it to NarrativeMapper"):
        model(images())


def test_evaluation_takes_captions_without_traces_and_images_without_captions(model):
    model.eval()
    captioned = with_targets("caption_tokens", CAPTIONS)
    plain, *outputs = model([*images(1), *captioned])
    assert plain == {} and [set(output) for output in outputs] == [{"losses", "attention"}] * 4
    assert [list(output["losses"]) for output in outputs] == [["loss_contrastive"]] * 4
    for output, expected in zip(outputs, model(captioned), strict=True):
        torch.testing.assert_close(output, expected)
    assert model(images()) == [{}] * 3


def test_losses_belong_to_their_images_also_behind_one_without_a_caption(model):
    plain, *outputs = model.eval()([*images(1), *batch()])
    torch.testing.assert_close(outputs, model(batch()))
    assert plain == {} and [
        float(output["losses"]["loss_localization"][1]) for output in outputs
    ] == [2, 1, 0, 1]


def test_a_batch_without_a_point_has_no_loss_on_attention_and_a_gradient_of_zero(model):
    losses = model([batch()[2]] * 2)
    losses["loss_localization"].backward()
    assert losses["loss_localization"] == 0 and not model.token_embedding.weight.grad.any()


@pytest.mark.parametrize("options", [(), TWO_FEATURES, CROSS_ENTROPY])
def test_every_parameter_learns(build, options):
    assert_every_parameter_learns(build("LocTexModel", *SMALL, *options), batch())


def test_a_few_steps_lower_each_loss(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    history = []
    for _ in range(25):
        losses = model(batch())
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert all(history[-1][name] < history[0][name] / 2 for name in history[0])


@pytest.mark.parametrize("options", [(), CROSS_ENTROPY, WITHOUT_TRACES])
def test_mixed_precision_gives_the_losses_and_attention_of_full_precision(build, options):
    model = with_fixed_norms(build("LocTexModel", *SMALL, *options))
    full = model(batch())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch())
        attention = model.eval()(batch())[0]["attention"]
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.01, check_dtype=False)
    torch.testing.assert_close(attention, model(batch())[0]["attention"], rtol=0.1, atol=0.05)
    model.train()
    sum(mixed.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_feature_map_that_the_backbone_does_not_give_is_refused_with_what_to_set(build):
    with pytest.raises(
        UserError, match=r"res4.*\n.* with MODEL.RESNETS.OUT_FEATURES \['res4', 'res5'\]"
    ):
        build("LocTexModel", *SMALL, "MODEL.LOCTEX.LOCALIZATION_FEATURES", ("res4",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TEMPERATURE", 0.0), "TEMPERATURE is 0.0"),
        (("TEMPERATURE", -0.1), "TEMPERATURE is -0.1"),
        (("LOCALIZATION_WEIGHT", -1.0), "LOCALIZATION_WEIGHT -1.0"),
        (("LOCALIZATION_FEATURES", ()), "LOCALIZATION_FEATURES is empty"),
        (("LOCALIZATION_LOSS", "l2"), "LOCALIZATION_LOSS is 'l2'; expected one of distance"),
    ],
)
def test_a_value_that_would_train_towards_nothing_is_refused(build, options, message):
    key, value = options
    with pytest.raises(UserError, match=message):
        build("LocTexModel", *SMALL, f"MODEL.LOCTEX.{key}", value)


def test_a_backbone_without_its_last_feature_map_is_refused(build):
    only_res4 = (
        "MODEL.RESNETS.OUT_FEATURES",
        ["res4"],
        "MODEL.LOCTEX.LOCALIZATION_FEATURES",
        ("res4",),
    )
    with pytest.raises(UserError, match=r"not return res5(?s:.*)OUT_FEATURES \['res4', 'res5'\]"):
        build("LocTexModel", *SMALL, *only_res4)


def test_without_localisation_its_features_do_not_matter(build):
    build("LocTexModel", *SMALL, *WITHOUT_TRACES, "MODEL.LOCTEX.LOCALIZATION_FEATURES", ())(batch())
