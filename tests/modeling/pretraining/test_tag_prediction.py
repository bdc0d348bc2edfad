"""Tag prediction: TP_Postag and TP_Cluster, with either loss."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.modeling.pretraining.conftest import (
    assert_a_few_steps_lower_the_loss,
    assert_every_parameter_learns,
    images,
    with_targets,
)
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.concepts import Concept, ConceptSet
from virtex_det.errors import UserError

TAGS = [[0, 3], [4], []]  # the first label is a tag like any other
FIVE = ("MODEL.TAG_PREDICTION.NUM_TAGS", 5)


def batch():
    return with_targets("tags", TAGS[:2])


def softmax_loss(logits: torch.Tensor, tags: list[int]) -> torch.Tensor:
    return -logits.log_softmax(dim=0)[tags].mean()


def sigmoid_loss(logits: torch.Tensor, tags: list[int]) -> torch.Tensor:
    return -sum(F.logsigmoid(logit if tag in tags else -logit) for tag, logit in enumerate(logits))


@pytest.mark.parametrize(("name", "loss"), [("softmax", softmax_loss), ("sigmoid", sigmoid_loss)])
def test_the_loss_is_the_mean_over_images_of_the_named_one(build, name, loss):
    model = build("TagPredictionModel", *FIVE, "MODEL.TAG_PREDICTION.LOSS", name).eval()
    logits = model.textual(model.visual_grid(batch()))
    expected = [loss(logits[0], TAGS[0]), loss(logits[1], TAGS[1])]
    found = [output["losses"]["loss_tag_prediction"] for output in model(batch())]
    torch.testing.assert_close(
        torch.stack(found), torch.tensor([[value, 1.0] for value in expected])
    )
    model.train().backbone.eval()
    torch.testing.assert_close(model(batch())["loss_tag_prediction"], torch.stack(expected).mean())


def test_a_caption_without_concepts_counts_for_nothing_with_a_softmax(build):
    outputs = build("TagPredictionModel", *FIVE).eval()(
        [
            example | {"tags": torch.tensor(t, dtype=torch.int64)}
            for example, t in zip(images(), TAGS, strict=True)
        ]
    )
    assert [float(output["losses"]["loss_tag_prediction"][1]) for output in outputs] == [1, 1, 0]


def test_sigmoids_start_with_one_expected_tag(build):
    options = ("MODEL.TAG_PREDICTION.NUM_TAGS", 1000, "MODEL.TAG_PREDICTION.LOSS", "sigmoid")
    head = build("TagPredictionModel", *options)
    assert 1000 * head.textual.output.bias.sigmoid().mean().item() == pytest.approx(1, rel=0.01)
    assert head.textual.output.bias[0].item() == pytest.approx(-math.log(1000))


def test_the_number_of_tags_is_read_from_where_the_mapper_has_them(build, tmp_path):
    concepts = tuple(
        Concept(word, "noun", 9, token)
        for token, word in enumerate(["cat", "dog", "star"], start=4)
    )
    ConceptSet("0" * 64, ("noun",), concepts).write(tmp_path / "concepts.json")
    CaptionClusters(6, 0, "tf-idf", {"a cat": 5}).write(tmp_path / "clusters.json")
    files = (
        ("INPUT.CAPTION.CONCEPTS", str(tmp_path / "concepts.json")),
        (
            *("INPUT.CAPTION.CLUSTERS", str(tmp_path / "clusters.json")),
            *("DATALOADER.MAPPER", "ClusterMapper"),
        ),
    )
    assert [
        build("TagPredictionModel", *options).textual.output.out_features for options in files
    ] == [3, 6]
    with pytest.raises(UserError, match=r"NUM_TAGS is 5, but INPUT.CAPTION.CLUSTERS .* has 6 tags"):
        build("TagPredictionModel", *FIVE, *files[1])


def test_without_a_file_the_error_says_how_to_build_one(build):
    with pytest.raises(UserError, match="virtex-det data concepts"):
        build("TagPredictionModel")


def test_another_loss_is_refused(build):
    with pytest.raises(UserError, match="'hinge'; expected one of softmax, sigmoid"):
        build("TagPredictionModel", *FIVE, "MODEL.TAG_PREDICTION.LOSS", "hinge")


def test_an_example_without_tags_says_which_mappers_make_them(build):
    with pytest.raises(
        UserError, match="DATALOADER.MAPPER empty, or set it to ConceptMapper or ClusterMapper"
    ):
        build("TagPredictionModel", *FIVE)(images())


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_every_parameter_learns_and_a_few_steps_lower_the_loss(build, loss):
    options = (*FIVE, "MODEL.TAG_PREDICTION.LOSS", loss)
    assert_every_parameter_learns(build("TagPredictionModel", *options), batch())
    assert_a_few_steps_lower_the_loss(build("TagPredictionModel", *options), batch())
