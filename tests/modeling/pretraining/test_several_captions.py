"""Several captions of an image in one step: as if each were alone, with the image encoded once."""

import pytest
import torch

from tests.modeling.pretraining.conftest import Examples, draw, images
from virtex_det.modeling.pretraining.contrastive import (
    contrastive_losses,
    sigmoid_contrastive_losses,
)

CAPTIONS = [[[1, 5, 9, 7, 2], [1, 6, 2]], [[1, 5, 2]], [[1, 8, 2], [1, 6, 9, 2], [1, 5, 7, 2]]]
MASKED = 3
SMALL = (
    *("MODEL.ICMLM.ATTENTION_HEADS", 2, "MODEL.ICMLM.FEEDFORWARD_SIZE", 32),
    *("MODEL.ICMLM.DROPOUT", 0.0),
    *("MODEL.ICMLM.TAG_WEIGHT", 0.5, "MODEL.TAG_PREDICTION.NUM_TAGS", 40),
)
BY_CAPTION = {
    "CaptioningModel": (),
    "BicaptioningModel": (),
    "MaskedLanguageModel": (),
    "ICMLM tfm": ("MODEL.ICMLM.HEAD", "tfm", *SMALL),
    "ICMLM att-fc": ("MODEL.ICMLM.HEAD", "att_fc", *SMALL),
}
BY_IMAGE = {
    "TokenClassificationModel": (),
    "TagPredictionModel": ("MODEL.TAG_PREDICTION.NUM_TAGS", 40),
}


def of_caption(tokens: list[int]) -> dict[str, torch.Tensor]:
    """Everything that a model may learn of a caption; its second token is masked."""
    labels = [0, tokens[1], *[0] * (len(tokens) - 2)]
    masked = [tokens[0], MASKED, *tokens[2:]]
    return {
        "caption_tokens": torch.tensor(tokens),
        "masked_labels": torch.tensor(labels),
        "tags": torch.tensor(tokens[1:-1]),
        "masked_tokens": torch.tensor(masked),
    }


def batch(model: str) -> Examples:
    """Images with one to three captions."""
    examples = []
    for image, captions in zip(images(len(CAPTIONS)), CAPTIONS, strict=True):
        learned = [of_caption(tokens) for tokens in captions]
        if model.startswith(("ICMLM", "Masked")):
            learned = [of | {"caption_tokens": of["masked_tokens"]} for of in learned]
        examples.append(image | {"by_caption": learned})
    return examples


def one_by_one(examples: Examples) -> Examples:
    """The image of each caption, and the caption."""
    alone = []
    for example in examples:
        for caption in example["by_caption"]:
            alone.append({"image": example["image"], **caption})
    return alone


def make(build, name: str, options: tuple):
    return build("ICMLMModel" if name.startswith("ICMLM") else name, *options)


@pytest.mark.parametrize("name", BY_CAPTION)
def test_losses_are_those_of_captions_one_by_one(build, name):
    model = make(build, name, BY_CAPTION[name])
    model.backbone.eval()  # no image depends on the others
    together, apart = model(batch(name)), model(one_by_one(batch(name)))
    for loss in set(together) - {"loss_tag_prediction"}:
        torch.testing.assert_close(together[loss], apart[loss])


@pytest.mark.parametrize("name", [*BY_CAPTION, *BY_IMAGE])
def test_images_go_through_the_backbone_once(build, name):
    model = make(build, name, {**BY_CAPTION, **BY_IMAGE}[name])
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    model(batch(name))
    assert seen == [len(CAPTIONS)]


@pytest.mark.parametrize("name", [*BY_IMAGE, "ICMLM tfm"])
def test_labels_of_an_image_are_those_of_all_its_captions(build, name):
    model = make(build, name, {**BY_CAPTION, **BY_IMAGE}[name])
    model.backbone.eval()
    joined = []
    for example in batch(name):
        captions = example["by_caption"]
        joined.append(
            {"image": example["image"], "masked_labels": captions[0]["masked_labels"]}
            | {key: torch.cat([of[key] for of in captions]) for key in ("caption_tokens", "tags")}
        )
    loss = next(iter(set(model(joined)) - {"loss_masked_concept"}))
    torch.testing.assert_close(model(batch(name))[loss], model(joined)[loss])


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_loctex_learns_from_several_captions_with_traces(build, loss):
    model = build("LocTexModel", "MODEL.LOCTEX.CONTRASTIVE_LOSS", loss)
    model.backbone.eval()
    points = torch.tensor([[1, 0.2, 0.2], [1, 0.7, 0.4]])
    examples = batch("LocTexModel")
    for example in examples:
        example["by_caption"] = [of | {"trace_points": points} for of in example["by_caption"]]
    losses = model(examples)
    alone = model(one_by_one(examples))
    torch.testing.assert_close(losses["loss_localization"], alone["loss_localization"])
    assert losses["loss_contrastive"] > 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


OWNERS = torch.tensor([0, 0, 1, 2, 2, 2])


def test_contrastive_losses_compare_a_caption_with_those_of_other_images():
    pictures, captions = draw(3, 4), draw(6, 4, seed=1)
    unit = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in (pictures, captions)]
    similarity = (unit[0] @ unit[1].T / 0.3).exp()
    expected = []
    for caption, owner in enumerate(OWNERS):
        pair = similarity[owner, caption]
        others = sum(similarity[owner, k] for k in range(6) if OWNERS[k] != owner)
        among_captions = pair / (pair + others)
        among_images = pair / similarity[:, caption].sum()
        expected.append(-(among_captions.log() + among_images.log()) / 2)
    found = contrastive_losses(pictures, captions, 0.3, OWNERS)
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_sigmoid_loss_counts_every_caption_of_the_image_as_a_pair():
    pictures, captions = draw(3, 4), draw(6, 4, seed=1)
    unit = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in (pictures, captions)]
    logits = 3 * unit[0] @ unit[1].T - 1.5
    belongs = OWNERS == torch.arange(3).unsqueeze(1)
    probability = logits.sigmoid()
    expected = -torch.where(belongs, probability, 1 - probability).log().sum(dim=1)
    numbers = torch.tensor(3.0), torch.tensor(-1.5)
    found = sigmoid_contrastive_losses(pictures, captions, *numbers, OWNERS)
    torch.testing.assert_close(found, expected)
