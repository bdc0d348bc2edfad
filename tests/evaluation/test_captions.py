import json
import math
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from tests.processes import launch_processes
from virtex_det.data.datasets import load_dataset
from virtex_det.data.tokenizer import SentencePieceTokenizer
from virtex_det.errors import UserError
from virtex_det.evaluation import CaptionEvaluator, captions

IMAGES = {11: ["a red circle"], 12: ["a blue square", "a square"], 13: ["a green triangle"]}


@pytest.fixture
def dataset():
    name = "three_captioned_images"
    DatasetCatalog.register(
        name, lambda: [{"image_id": image, "captions": texts} for image, texts in IMAGES.items()]
    )
    yield name
    DatasetCatalog.remove(name)


@pytest.fixture
def measured(monkeypatch):
    """Replaces the metrics, which need Java, and records their arguments."""
    asked = []

    def metrics(predictions, references):
        asked.append((dict(predictions), dict(references)))
        return {"BLEU_4": 30.0}

    monkeypatch.setattr(captions, "caption_metrics", metrics)
    return asked


@pytest.fixture
def evaluator(pretraining_cfg, dataset, tmp_path):
    return CaptionEvaluator(pretraining_cfg(), dataset, tmp_path / "inference")


def written(cfg, text: str) -> dict:
    return {
        "caption_tokens": torch.tensor(
            SentencePieceTokenizer(cfg.INPUT.CAPTION.TOKENIZER).encode(text)
        )
    }


def losses(forward, backward=(0.0, 1)) -> dict:
    return {
        "losses": {"loss_forward": torch.tensor(forward), "loss_backward": torch.tensor(backward)}
    }


def process(evaluator, outputs):
    for image, output in outputs.items():
        evaluator.process([{"image_id": image}], [output])


def test_a_loss_is_the_mean_over_all_targets_whatever_the_batches(evaluator):
    inputs = [{"image_id": image} for image in IMAGES]
    outputs = [
        losses((6.0, 2.0), (1.0, 2.0)),
        losses((1.0, 8.0), (9.0, 2.0)),
        losses((5.0, 2.0), (2.0, 2.0)),
    ]
    evaluator.process(inputs[:1], outputs[:1])
    evaluator.process(inputs[1:], outputs[1:])
    assert evaluator.evaluate() == {
        "validation": {"loss_forward": 1.0, "loss_backward": 2.0, "loss": 3.0}
    }


def test_an_image_seen_twice_counts_once(evaluator):
    process(evaluator, {image: losses((2.0, 1.0)) for image in IMAGES})
    process(evaluator, {11: losses((2.0, 1.0))})
    process(evaluator, {12: losses((2.0, 1.0))})
    assert evaluator.losses.keys() == IMAGES.keys()
    assert evaluator.evaluate()["validation"]["loss_forward"] == 2.0


def test_a_loss_without_targets_is_not_a_number(evaluator):
    process(evaluator, {image: losses((0.0, 0.0)) for image in IMAGES})
    assert math.isnan(evaluator.evaluate()["validation"]["loss_forward"])


def test_a_second_evaluation_starts_afresh(evaluator):
    process(evaluator, {image: losses((9.0, 1.0)) for image in IMAGES})
    evaluator.reset()
    process(evaluator, {image: losses((1.0, 1.0)) for image in IMAGES})
    assert evaluator.evaluate()["validation"]["loss_forward"] == 1.0


def test_captions_go_to_a_file_in_cocos_results_format_and_to_the_metrics(
    evaluator, pretraining_cfg, measured
):
    text = {13: "green triangle", 11: "a red circle", 12: ""}
    process(
        evaluator, {image: written(pretraining_cfg(), caption) for image, caption in text.items()}
    )
    assert evaluator.evaluate() == {"captions": {"BLEU_4": 30.0}}
    rows = json.loads((evaluator.output_folder / "captions.json").read_text())
    assert rows == [{"image_id": image, "caption": text[image]} for image in IMAGES]
    assert measured == [(text, IMAGES)]


def test_losses_and_captions_stand_beside_each_other(evaluator, pretraining_cfg, measured):
    outputs = losses((3.0, 2.0)) | written(pretraining_cfg(), "a red circle")
    process(evaluator, dict.fromkeys(IMAGES, outputs))
    assert evaluator.evaluate().keys() == {"validation", "captions"}


def test_the_loss_is_reported_where_no_metric_can_be_had(evaluator, pretraining_cfg, monkeypatch):
    monkeypatch.setattr(captions, "caption_metrics", lambda predictions, references: {})
    process(
        evaluator,
        dict.fromkeys(IMAGES, losses((3.0, 2.0)) | written(pretraining_cfg(), "a red circle")),
    )
    assert evaluator.evaluate().keys() == {"validation"}
    assert (evaluator.output_folder / "captions.json").exists()


def test_captions_of_images_without_references_are_written_and_not_measured(
    pretraining_cfg, measured, scenes, tmp_path, caplog
):
    evaluator = CaptionEvaluator(pretraining_cfg(), "scenes_val", tmp_path)
    output = written(pretraining_cfg(), "a red circle")
    process(evaluator, {image["image_id"]: output for image in load_dataset("scenes_val")})
    assert evaluator.evaluate() == {} and not measured
    assert "have no reference captions" in caplog.text and (tmp_path / "captions.json").exists()


@pytest.mark.parametrize("what", ["loss", "caption"])
def test_an_image_left_out_is_an_error(what, evaluator, pretraining_cfg):
    output = losses((1.0, 1.0)) if what == "loss" else written(pretraining_cfg(), "a red circle")
    process(evaluator, {11: output, 13: output})
    with pytest.raises(UserError, match=rf"returned no {what} for 1 of the 3 images .* image 12"):
        evaluator.evaluate()


def test_a_model_that_gives_neither_is_an_error(evaluator):
    process(evaluator, {image: {"instances": None} for image in IMAGES})
    with pytest.raises(UserError, match="neither losses nor captions"):
        evaluator.evaluate()


def _evaluate_a_part(cfg, dataset, folder) -> None:
    DatasetCatalog.register(dataset, lambda: [{"image_id": image} for image in IMAGES])
    evaluator = CaptionEvaluator(cfg, dataset, folder)
    share = (
        {11: losses((6.0, 2.0)), 12: losses((1.0, 8.0))},
        {13: losses((5.0, 2.0)), 11: losses((6.0, 2.0))},
    )
    process(evaluator, share[comm.get_rank()])
    results = evaluator.evaluate()
    Path(folder, f"{comm.get_rank()}.json").write_text(json.dumps(results))


@pytest.mark.slow
def test_processes_measure_their_images_together(pretraining_cfg, tmp_path):
    launch_processes(
        _evaluate_a_part, pretraining_cfg(), "images_of_two_processes", str(tmp_path), processes=2
    )
    assert json.loads((tmp_path / "0.json").read_text())["validation"]["loss_forward"] == 1.0
    assert json.loads((tmp_path / "1.json").read_text()) == {}
