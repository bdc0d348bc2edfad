"""The documented commands on real COCO, VOC and LVIS images, end to end."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase

from tests.engine.test_exact_resume import assert_same
from tests.processes import ROOT, SERVER, run_script
from virtex_det.data.datasets.builtin import register_builtin_datasets
from virtex_det.engine import Trainer, argument_parser, evaluate, setup

pytestmark = pytest.mark.slow
SHORT = ("SOLVER.MAX_ITER", 2, "SOLVER.WARMUP_ITERS", 1, "TEST.PRECISE_BN.NUM_ITER", 1)
NARROW = ("MODEL.RESNETS.STEM_OUT_CHANNELS", 16, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32)
NARROW += ("MODEL.RESNETS.WIDTH_PER_GROUP", 8)
NARROW_HEADS = ("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 32)
NARROW_HEADS += ("MODEL.ROI_MASK_HEAD.CONV_DIM", 16)


@pytest.fixture
def run(samples):
    """Runs a tool from the repository's root on the samples; returns its output."""

    def run(tool: str, *words: object) -> str:
        environment = os.environ | {"DETECTRON2_DATASETS": str(samples)}
        done = run_script(f"tools/{tool}.py", *words, cwd=ROOT, env=environment)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run


def record(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_real_captions_in_real_box_and_mask_ap_out(run, tmp_path):
    vocabulary, pretrained = tmp_path / "vocabulary.model", tmp_path / "pretrain"
    detector, weights = tmp_path / "segm", pretrained / "model_final.pth"
    captions = "--dataset coco_mini_train_captions --vocab-size 1000"
    run("build_vocabulary", *captions.split(), "--output", vocabulary)
    run(
        *"train_net --config-file configs/pretrain/coco_mini_bicaptioning.yaml".split(),
        *f"INPUT.CAPTION.TOKENIZER {vocabulary} OUTPUT_DIR {pretrained}".split(),
        *"SOLVER.MAX_ITER 3 SOLVER.WARMUP_ITERS 1 SOLVER.IMS_PER_BATCH 4".split(),
        *"MODEL.TEXTUAL.HIDDEN_SIZE 32 MODEL.TEXTUAL.FEEDFORWARD_SIZE 64".split(),
    )
    run(
        *"train_net --config-file configs/detectron2/coco_mini_segm_smoke.yaml".split(),
        *f"OUTPUT_DIR {detector} MODEL.WEIGHTS {weights}".split(),
        *SHORT,
        *NARROW_HEADS,
    )
    found = record(detector)
    assert found["dataset"] == "coco_mini_val"
    assert found["weights"]["format"] == "virtex_det_pretraining"
    assert {"AP", "AP50"} <= set(found["metrics"]["bbox"]) & set(found["metrics"]["segm"])
    assert len(json.loads((detector / "load_report.json").read_text())["loaded"]) == 120


def test_faster_rcnn_c4_trains_and_evaluates_on_real_voc(run, tmp_path):
    config = "configs/detectron2/voc_mini_det_smoke.yaml"
    run("train_net", "--config-file", config, "OUTPUT_DIR", tmp_path, *SHORT, *NARROW)
    assert {"AP", "AP50", "AP75"} <= set(record(tmp_path)["metrics"]["bbox"])


def test_mask_rcnn_evaluates_on_real_lvis_without_training_data(run, tmp_path):
    words = ("--config-file", "configs/detectron2/lvis_100_segm_smoke.yaml", "OUTPUT_DIR", tmp_path)
    narrow = (*NARROW, *NARROW_HEADS, "TEST.DETECTIONS_PER_IMAGE", 30)
    run("train_net", *words, *SHORT, *narrow)
    first = record(tmp_path)
    run("train_net", "--eval-only", "--resume", *words, *narrow)
    assert {"AP", "APr", "APc", "APf"} <= set(first["metrics"]["segm"])
    assert record(tmp_path)["metrics"] == first["metrics"]


def test_real_narrations_teach_loctex_and_are_drawn(run, samples, tmp_path):
    folder, vocabulary = samples / "vidln_sample", tmp_path / "vocabulary.model"
    name = f"narratives:{folder / 'derived_localized_narratives.jsonl'}:{folder / 'images'}"
    run("build_vocabulary", "--dataset", name, "--vocab-size", 300, "--output", vocabulary)
    run(
        *"train_net --config-file configs/pretrain/scenes_loctex.yaml".split(),
        *("DATASETS.TRAIN", f"('{name}',)"),
        *f"INPUT.CAPTION.TOKENIZER {vocabulary} MODEL.TEXTUAL.VOCAB_SIZE 300".split(),
        *("INPUT.CAPTION.CONCEPTS", "", "INPUT.CAPTION.PER_IMAGE", 1),
        *"INPUT.CAPTION.MAX_LENGTH 128 SOLVER.MAX_ITER 3 SOLVER.WARMUP_ITERS 1".split(),
        *f"SOLVER.IMS_PER_BATCH 8 OUTPUT_DIR {tmp_path / 'run'}".split(),
    )
    losses = json.loads((tmp_path / "run" / "metrics.json").read_text().splitlines()[-1])
    assert losses["loss_contrastive"] > 0 and 0 < losses["loss_localization"] < 6
    run(
        *f"visualize_attention --run {tmp_path / 'run'} --limit 2".split(),
        *("--dataset", name, "--output", tmp_path / "page"),
    )
    assert len(list((tmp_path / "page").rglob("*.png"))) == 2
    assert "data:image/jpeg" in (tmp_path / "page" / "attention.html").read_text()


def test_real_captions_teach_icmlm_with_the_concepts_found_in_them(run, tmp_path):
    vocabulary, concepts = tmp_path / "vocabulary.model", tmp_path / "concepts.json"
    names = ("--dataset", "coco_mini_train_captions")
    run("build_vocabulary", *names, "--vocab-size", 1000, "--output", vocabulary)
    run("build_concepts", *names, "--tokenizer", vocabulary, "--size", 200, "--output", concepts)
    words = {concept["word"] for concept in json.loads(concepts.read_text())["concepts"]}
    assert {"man", "table", "dog"} <= words and not {"white", "front", "area"} & words
    run(
        *"train_net --config-file configs/pretrain/scenes_icmlm_att_fc.yaml".split(),
        *("DATASETS.TRAIN", "('coco_mini_train_captions',)"),
        *("DATASETS.TEST", "('coco_mini_val_captions',)"),
        *f"INPUT.CAPTION.TOKENIZER {vocabulary} INPUT.CAPTION.CONCEPTS {concepts}".split(),
        *"MODEL.TEXTUAL.VOCAB_SIZE 1000 SOLVER.MAX_ITER 3 SOLVER.WARMUP_ITERS 1".split(),
        *"SOLVER.IMS_PER_BATCH 8 MODEL.ICMLM.TAG_WEIGHT 1.0".split(),
        *("OUTPUT_DIR", tmp_path / "run"),
    )
    assert set(record(tmp_path / "run")["metrics"]["validation"]) == {
        *("loss_masked_concept", "loss_tag_prediction", "loss"),
    }


class Die(HookBase):
    """Kills this process one step after the first checkpoint."""

    def before_step(self) -> None:
        if self.trainer.iter == 3:
            os.kill(os.getpid(), signal.SIGKILL)


def train_net(samples: Path, words: list[str], dies: bool = False) -> None:
    """Do what tools/train_net.py does, on the samples."""
    torch.set_num_threads(1)
    register_builtin_datasets(samples)
    args = argument_parser().parse_args(words)
    cfg = setup(args)
    if args.eval_only:
        evaluate(cfg, resume=args.resume)
        return
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    trainer.register_hooks([Die()] if dies else [])
    trainer.train()


@pytest.fixture
def train_net_in_a_process(samples):
    """Calls ``train_net`` in a process of its own; returns its exit code."""

    def call(*words: object, dies: bool = False) -> int | None:
        process = SERVER.Process(target=train_net, args=(samples, [*map(str, words)], dies))
        process.start()
        process.join()
        return process.exitcode

    return call


def predictions(folder: Path) -> dict[str, list]:
    files = (folder / "inference").rglob("*.json")
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in files}


SMALL = """
    MODEL.RESNETS.STEM_OUT_CHANNELS 8 MODEL.RESNETS.RES2_OUT_CHANNELS 8
    MODEL.RESNETS.WIDTH_PER_GROUP 8 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 32
    MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.RPN.POST_NMS_TOPK_TEST 20 TEST.PRECISE_BN.NUM_ITER 1
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MAX_SIZE_TRAIN 96 INPUT.MIN_SIZE_TEST 64 INPUT.MAX_SIZE_TEST 96
    SOLVER.MAX_ITER 4 SOLVER.WARMUP_ITERS 1 SOLVER.CHECKPOINT_PERIOD 2
""".split()


@pytest.mark.parametrize("name", ["coco_mini_segm", "voc_mini_det", "lvis_100_segm"])
def test_a_run_on_real_images_that_is_killed_and_resumed_equals_one_that_was_not(
    name, train_net_in_a_process, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ("--config-file", f"configs/detectron2/{name}_smoke.yaml", *SMALL, "OUTPUT_DIR")
    assert train_net_in_a_process(*words, whole) == 0
    assert train_net_in_a_process(*words, killed, dies=True) == -signal.SIGKILL
    assert (killed / "last_checkpoint").read_text() == "model_0000001.pth"
    assert train_net_in_a_process("--resume", *words, killed) == 0
    assert_same(whole, killed)
    found = predictions(whole)
    assert found and all(found.values()) and predictions(killed) == found
    trained = record(whole)["metrics"]
    for path in (killed / "inference").rglob("*.json"):
        path.unlink()
    assert train_net_in_a_process("--eval-only", "--resume", *words, killed) == 0
    assert predictions(killed) == found and str(record(killed)["metrics"]) == str(trained)
