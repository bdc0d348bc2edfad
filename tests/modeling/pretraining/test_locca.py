"""LocCa: three texts through one decoder, by their formulas; captions behind a prompt."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.modeling.pretraining.conftest import (
    Examples,
    assert_a_few_steps_lower_the_loss,
    assert_every_parameter_learns,
    images,
)
from virtex_det import Captioner
from virtex_det.engine import Trainer, load_config
from virtex_det.errors import UserError

# Tokens and where the answer begins: captions of all images, regions of two.
TEXTS: dict[str, list[tuple[list[int], int] | None]] = {
    "caption": [([1, 30, 5, 9, 2], 2), ([1, 30, 6, 2], 2), ([1, 30, 7, 7, 8, 2], 2)],
    "referring": [([1, 31, 5, 33, 20, 21, 2], 4), None, ([1, 31, 8, 33, 22, 23, 2], 4)],
    "grounded": [([1, 32, 20, 21, 33, 5, 2], 5), None, ([1, 32, 22, 23, 33, 8, 9, 2], 5)],
}
NAMES = ["loss_captioning", "loss_referring", "loss_grounded_captioning"]


def prompted() -> Examples:
    examples = images(3)
    for name, texts in TEXTS.items():
        for example, text in zip(examples, texts, strict=True):
            if text is not None:
                tokens, given = torch.tensor(text[0]), text[1]
                labels = tokens.clone()
                labels[:given] = 0
                example |= {f"{name}_tokens": tokens, f"{name}_labels": labels}
    return examples


@pytest.fixture
def model(build) -> nn.Module:
    return build("LocCaModel")


def minus_log_probabilities(logits: Tensor, answer: list[int]) -> list[float]:
    """By NumPy: of each token of an answer, given the logits (tokens, vocabulary) before it."""
    values = logits.detach().double().numpy()
    shares = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    return [-float(np.log(row[token])) for row, token in zip(shares, answer, strict=True)]


@pytest.mark.parametrize("parallel", [False, True])
def test_each_loss_is_the_mean_over_the_tokens_of_its_answers(build, parallel):
    """In parallel prediction the captions come from the image alone, and regions do not."""
    model = build("LocCaModel", "MODEL.TEXTUAL.PARALLEL_FRACTION", float(parallel))
    losses = model(prompted())
    assert list(losses) == NAMES
    grid, head = model.visual_grid(prompted()), model.textual
    for (name, texts), loss in zip(TEXTS.items(), losses.values(), strict=True):
        expected = []
        for image, text in enumerate(texts):
            if text is None:
                continue
            tokens, given = text
            memory = head.project(grid[image : image + 1])
            if parallel and name == "caption":
                features = head.in_parallel(memory, len(tokens) - 1)
            else:
                features = head(torch.tensor([tokens[:-1]]), memory)
            logits = head.output(features[0])[given - 1 :]
            expected += minus_log_probabilities(logits, tokens[given:])
        assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_losses_in_evaluation_belong_to_their_images(model):
    outputs = model.eval()(prompted())
    counts = {name: [float(each["losses"][name][1]) for each in outputs] for name in NAMES}
    assert counts == {
        **{"loss_captioning": [3, 2, 4], "loss_referring": [3, 0, 3]},
        "loss_grounded_captioning": [2, 0, 3],
    }
    for example, output in zip(prompted(), outputs, strict=True):
        (alone,) = model([example])
        for name, loss in alone["losses"].items():
            torch.testing.assert_close(output["losses"][name], loss)


def test_without_a_region_there_is_a_caption_alone(model):
    plain = [prompted()[1]] * 2
    losses = model(plain)
    sum(losses.values()).backward()
    assert losses["loss_referring"] == losses["loss_grounded_captioning"] == 0
    assert list(model.eval()(plain)[0]["losses"]) == ["loss_captioning"]


def test_every_parameter_learns_and_a_few_steps_lower_the_loss(model):
    assert_every_parameter_learns(model, prompted())
    assert_a_few_steps_lower_the_loss(model, prompted())


def test_mixed_precision_gives_the_losses_of_full_precision(model):
    full = model(prompted())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(prompted())
    torch.testing.assert_close(mixed, full, rtol=0.05, atol=0.01, check_dtype=False)
    sum(mixed.values()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_example_of_captions_alone_is_refused(model):
    with pytest.raises(UserError, match="MAPPER empty, or set it to RegionMapper"):
        model(images())


@pytest.mark.slow
def test_a_run_trains_in_mixed_precision_evaluates_and_captions(
    pretraining_cfg, scenes, boxes_vocabulary, tmp_path
):
    own = {
        "INPUT.CAPTION.TOKENIZER": str(boxes_vocabulary),
        "DATASETS.TEST": "('scenes_val_narratives', 'scenes_val_captions')",
        "SOLVER.AMP.ENABLED": "True",
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    tiny = pretraining_cfg()
    sizes = {
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
        "INPUT.CAPTION.CROP_SIZE": tiny.INPUT.CAPTION.CROP_SIZE,
        **{"SOLVER.MAX_ITER": 4, "SOLVER.IMS_PER_BATCH": 4, "SOLVER.WARMUP_ITERS": 1},
    }
    trainer = Trainer(load_config("pretrain/scenes_locca.yaml", own | sizes))
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    narrated = results["scenes_val_narratives"]["validation"]
    assert {*NAMES} < narrated.keys() and all(np.isfinite([*narrated.values()]))
    assert {*results["scenes_val_captions"]["validation"]} == {"loss_captioning", "loss"}
    assert (tmp_path / "run/inference/scenes_val_captions/captions.json").is_file()
    captions = Captioner(tmp_path / "run")([str(scenes / "val" / "000000.png")] * 2)
    assert captions[0].text == captions[1].text and "cap:" not in captions[0].text
