import math

import pytest
import torch
from detectron2.modeling import build_model
from torch.nn import functional as F

from virtex_det import get_cfg


@pytest.fixture
def cfg():
    cfg = get_cfg()
    options = (
        "MODEL.DEVICE cpu MODEL.META_ARCHITECTURE ImageClassifier INPUT.FORMAT RGB "
        "MODEL.BACKBONE.NAME build_caption_resnet_backbone MODEL.BACKBONE.FREEZE_AT 0 "
        "MODEL.RESNETS.OUT_FEATURES ['res5'] MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.NORM BN "
        "MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 8 "
        "MODEL.CLASSIFIER.NUM_CLASSES 4"
    )
    cfg.merge_from_list(options.split())
    return cfg


@pytest.fixture
def batch():
    images = torch.randint(
        256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return [
        {"image": image, "label": label} for image, label in zip(images, (2, 0, 3), strict=True)
    ]


def statistics(model):
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name}


def test_the_classifier_starts_small_so_that_all_classes_are_equally_likely(cfg, batch):
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 1000
    model = build_model(cfg)
    assert model.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model.classifier.bias.any()
    assert model(batch)["loss_classification"].item() == pytest.approx(math.log(1000), rel=0.05)


def test_in_evaluation_each_image_has_scores_of_its_average_feature_and_a_loss(cfg, batch):
    model = build_model(cfg).eval()
    outputs = model(batch)
    scores = model.classifier(model.backbone(images_of(model, batch))["res5"].flatten(2).mean(2))
    assert torch.allclose(torch.stack([output["scores"] for output in outputs]), scores, atol=1e-6)
    losses = torch.stack([output["losses"]["loss_classification"] for output in outputs])
    expected = F.cross_entropy(scores, torch.tensor([2, 0, 3]), reduction="none")
    assert torch.allclose(losses, torch.stack([expected, torch.ones(3)], dim=1), atol=1e-6)


def images_of(model, batch):
    return (
        torch.stack([example["image"] for example in batch]) - model.pixel_mean
    ) / model.pixel_std


def test_the_training_loss_is_the_mean_over_images(cfg, batch):
    cfg.MODEL.BACKBONE.FREEZE_AT = 5  # the same features in training and evaluation
    model = build_model(cfg)
    loss = model.train()(batch)["loss_classification"]
    alone = [output["losses"]["loss_classification"][0] for output in model.eval()(batch)]
    assert loss.item() == pytest.approx(sum(alone).item() / 3, rel=1e-5)


def test_images_without_labels_get_scores_alone(cfg, batch):
    del batch[1]["label"]
    outputs = build_model(cfg).eval()(batch)
    assert ["losses" in output for output in outputs] == [True, False, True]
    assert all(output["scores"].shape == (4,) for output in outputs)


def test_a_frozen_backbone_keeps_its_statistics_while_the_classifier_trains(cfg, batch):
    cfg.MODEL.BACKBONE.FREEZE_AT = 5
    model = build_model(cfg).train()
    before = statistics(model)
    model(batch)["loss_classification"].backward()
    assert before and all(
        torch.equal(value, before[name]) for name, value in statistics(model).items()
    )
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_fine_tuning_moves_everything(cfg, batch):
    model = build_model(cfg).train()
    before = statistics(model)
    model(batch)["loss_classification"].backward()
    assert not any(torch.equal(value, before[name]) for name, value in statistics(model).items())
    assert all(parameter.grad is not None for parameter in model.parameters())
