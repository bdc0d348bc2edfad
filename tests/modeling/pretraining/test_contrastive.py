"""Contrastive losses by their formulas: InfoNCE, and SigLIP's sigmoid loss."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.modeling.pretraining.conftest import (
    assert_a_few_steps_lower_the_loss,
    assert_every_parameter_learns,
    draw,
    with_targets,
)
from virtex_det.errors import UserError
from virtex_det.modeling.pretraining.contrastive import (
    SigmoidContrast,
    contrastive_losses,
    sigmoid_contrastive_losses,
)

CAPTIONS = [[1, 9, 7, 2], [1, 6, 2], [1, 5, 8, 2], [1, 11, 2]]
SIGLIP = (
    *("MODEL.LOCTEX.CONTRASTIVE_LOSS", "sigmoid", "MODEL.LOCTEX.SIGMOID_BIAS", -2.0),
    *("MODEL.LOCTEX.LOCALIZATION_WEIGHT", 0.0, "MODEL.LOCTEX.EMBED_SIZE", 12),
)


def slow_contrastive(images: Tensor, captions: Tensor, temperature: float) -> Tensor:
    """Minus the log of the pair's share in all pairs of the image, and of the caption; their
    mean.
    """

    def similarity(image: Tensor, caption: Tensor) -> Tensor:
        return (torch.dot(image, caption) / image.norm() / caption.norm() / temperature).exp()

    losses = []
    for k in range(len(images)):
        pair = similarity(images[k], captions[k])
        among_captions = pair / sum(similarity(images[k], caption) for caption in captions)
        among_images = pair / sum(similarity(image, captions[k]) for image in images)
        losses.append(-(among_captions.log() + among_images.log()) / 2)
    return torch.stack(losses)


def test_the_contrastive_loss_is_that_of_the_formula():
    found = contrastive_losses(draw(5, 4), draw(5, 4, seed=1), 0.3)
    torch.testing.assert_close(found, slow_contrastive(draw(5, 4), draw(5, 4, seed=1), 0.3))


def slow_sigmoid(images: Tensor, captions: Tensor, scale: float, bias: float) -> np.ndarray:
    """Minus the log of the probability that each of an image's pairs is judged as it is."""
    losses = []
    for number, image in enumerate(images.numpy()):
        total = 0.0
        for other, caption in enumerate(captions.numpy()):
            cosine = image @ caption / np.linalg.norm(image) / np.linalg.norm(caption)
            belongs = 1 / (1 + math.exp(-(scale * cosine + bias)))
            total -= math.log(belongs if other == number else 1 - belongs)
        losses.append(total)
    return np.array(losses)


def test_the_sigmoid_loss_is_that_of_the_formula():
    found = sigmoid_contrastive_losses(
        draw(5, 4), draw(5, 4, seed=1), torch.tensor(3.0), torch.tensor(-1.5)
    )
    np.testing.assert_allclose(
        found.numpy(), slow_sigmoid(draw(5, 4), draw(5, 4, seed=1), 3.0, -1.5), rtol=1e-6
    )


def test_gradients_are_those_of_finite_differences():
    pairs = (draw(3, 4).requires_grad_(), draw(3, 4, seed=1).requires_grad_())
    numbers = draw(2, seed=2).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda *features: contrastive_losses(*features, 0.3), pairs)
    assert torch.autograd.gradcheck(sigmoid_contrastive_losses, (*pairs, *numbers))


def test_temperature_and_bias_start_as_told_and_are_learned():
    loss = SigmoidContrast(temperature=0.1, bias=-10)
    losses = loss(draw(3, 4), draw(3, 4, seed=1))
    np.testing.assert_allclose(
        losses.detach().numpy(), slow_sigmoid(draw(3, 4), draw(3, 4, seed=1), 10, -10), rtol=1e-6
    )
    losses.sum().backward()
    assert loss.log_scale.grad and loss.bias.grad


def test_the_model_learns_by_the_sigmoid_loss(build):
    model = build("LocTexModel", *SIGLIP)
    examples = with_targets("caption_tokens", CAPTIONS)
    assert_every_parameter_learns(model, examples)
    assert_a_few_steps_lower_the_loss(model, examples)


def test_in_evaluation_the_sigmoid_loss_is_of_the_batch(build):
    model = build("LocTexModel", *SIGLIP).eval()
    outputs = model(with_targets("caption_tokens", CAPTIONS))
    assert [output["losses"]["loss_contrastive"][1] for output in outputs] == [1] * 4
    (alone,) = model(with_targets("caption_tokens", CAPTIONS)[:1])
    assert alone["losses"]["loss_contrastive"][0] < outputs[0]["losses"]["loss_contrastive"][0]


def test_mixed_precision_gives_the_sigmoid_losses_of_full_precision(build):
    model = build("LocTexModel", *SIGLIP, "MODEL.LOCTEX.SIGMOID_BIAS", -10.0)
    examples = with_targets("caption_tokens", CAPTIONS)
    full = model(examples)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(examples)
    assert mixed["loss_contrastive"].dtype == torch.float32
    torch.testing.assert_close(mixed, full, rtol=0.02, atol=0.0)
    sum(mixed.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_mixed_precision_does_not_round_the_logits():
    axes, scale, bias = torch.eye(3), torch.tensor(10.0), torch.tensor(-10.03)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sigmoid_contrastive_losses(axes, axes, scale, bias)
    np.testing.assert_allclose(mixed.numpy(), slow_sigmoid(axes, axes, 10.0, -10.03), rtol=1e-5)


def test_an_unknown_loss_is_refused(build):
    with pytest.raises(UserError, match=r"CONTRASTIVE_LOSS is 'clip'; expected .*infonce, sigmoid"):
        build("LocTexModel", "MODEL.LOCTEX.CONTRASTIVE_LOSS", "clip")
