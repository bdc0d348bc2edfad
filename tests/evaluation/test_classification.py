import json

import pytest
import torch
from detectron2.data import MetadataCatalog

from virtex_det.evaluation.classification import ClassificationEvaluator

CLASSES = list("abcdefg")


@pytest.fixture
def evaluator(tmp_path):
    MetadataCatalog.get("classification_evaluator_test").classes = CLASSES
    evaluator = ClassificationEvaluator("classification_evaluator_test", str(tmp_path))
    evaluator.reset()
    yield evaluator
    MetadataCatalog.remove("classification_evaluator_test")


def output(order, loss):
    """What a model returns whose best class is the first of ``order``."""
    scores = torch.empty(len(CLASSES))
    scores[[CLASSES.index(name) for name in order]] = torch.arange(len(CLASSES), 0, -1.0)
    return {"scores": scores, "losses": {"loss_classification": torch.tensor([loss, 1.0])}}


def test_top1_and_top5_are_counted_over_batches(evaluator, tmp_path):
    labels = [{"image_id": k, "label": label} for k, label in enumerate((0, 4, 5, 6))]
    orders = ["abcdefg", "abcdefg", "abcdefg", "gfedcba"]
    outputs = [
        output(order, loss) for order, loss in zip(orders, (1.0, 2.0, 3.0, 6.0), strict=True)
    ]
    evaluator.process(labels[:3], outputs[:3])
    evaluator.process(labels[3:], outputs[3:])
    assert evaluator.evaluate() == {
        "classification": {"top1": 50.0, "top5": 75.0},
        "validation": {"loss": 3.0},
    }
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written[3] == {"image_id": 3, "label": "g", "best": list("gfedc"), "loss": 6.0}


def test_a_second_evaluation_starts_anew(evaluator):
    for label, accuracy in ((0, 100.0), (1, 0.0)):
        evaluator.reset()
        evaluator.process([{"image_id": 1, "label": label}], [output("abcdefg", 1.0)])
        assert evaluator.evaluate()["classification"]["top1"] == accuracy


def test_fewer_than_five_classes_are_all_among_the_best(evaluator):
    few = {"scores": torch.tensor([1.0, 2.0]), "losses": {"loss_classification": torch.ones(2)}}
    evaluator.process([{"image_id": 1, "label": 0}], [few])
    assert evaluator.evaluate()["classification"] == {"top1": 0.0, "top5": 100.0}
