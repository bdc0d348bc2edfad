import itertools
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, inference_on_dataset
from detectron2.utils.env import seed_all_rng

from tests.processes import launch_processes
from virtex_det.benchmark import read_records
from virtex_det.data.datasets import dataset_version, load_dataset
from virtex_det.data.training_set import load_training_set
from virtex_det.engine import Trainer
from virtex_det.errors import UserError

BF16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16")


def train(cfg, resume: bool = False) -> Trainer:
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def final_weights(cfg) -> dict[str, torch.Tensor]:
    return torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"]


def logged(cfg) -> list[dict]:
    return [
        json.loads(line)
        for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    ]


def test_a_detector_trains_and_leaves_a_record_with_where_it_came_from(detector_cfg):
    cfg = detector_cfg()
    train(cfg)
    record = read_records(cfg.OUTPUT_DIR)[-1]
    assert set(record.metrics) == {"bbox", "segm"}
    assert record.iteration == 4
    assert record.dataset == "scenes_val"
    assert record.weights["format"] == "random init"
    assert (Path(cfg.OUTPUT_DIR) / "load_report.json").exists()


def test_evaluation_results_reach_metrics_json_at_the_step_they_were_taken(detector_cfg):
    cfg = detector_cfg("TEST.EVAL_PERIOD", 2)
    train(cfg)
    evaluated = [row["iteration"] for row in logged(cfg) if "bbox/AP" in row]
    assert evaluated[-1] == 4
    assert [record.iteration for record in read_records(cfg.OUTPUT_DIR)] == [2, 4]


def test_expected_results_that_are_not_met_stop_the_run(detector_cfg):
    with pytest.raises(SystemExit):
        train(detector_cfg("TEST.EXPECTED_RESULTS", [["bbox", "AP", 99.0, 0.1]]))


def test_a_pretrained_backbone_goes_into_a_detector_whole_and_unchanged(
    pretraining_cfg, detector_cfg
):
    train(pretraining_cfg())
    weights = Path(pretraining_cfg().OUTPUT_DIR) / "model_final.pth"
    trainer = Trainer(detector_cfg("MODEL.WEIGHTS", weights))
    trainer.resume_or_load(resume=False)
    pretrained = torch.load(weights, weights_only=True)["model"]
    loaded = trainer.model.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[name], pretrained[f"backbone.{name}"]) for name in loaded)
    report = json.loads((Path(trainer.cfg.OUTPUT_DIR) / "load_report.json").read_text())
    assert report["format"] == "virtex_det_pretraining"
    assert len(report["loaded"]) == len(loaded)
    assert report["missing"] == report["mismatched"] == []


def test_pretraining_lowers_its_loss(pretraining_cfg):
    cfg = pretraining_cfg("SOLVER.MAX_ITER", 40, "SOLVER.BASE_LR", 0.02)
    train(cfg)
    losses = [row["total_loss"] for row in logged(cfg)]
    assert losses[-1] < 0.85 * 2 * math.log(80)  # two directions, 80 pieces, uniform


@pytest.fixture
def bleu(monkeypatch):
    """A constant in place of the caption metrics, which need Java."""
    monkeypatch.setattr(
        "virtex_det.evaluation.captions.caption_metrics", lambda *captions: {"BLEU_4": 12.5}
    )


def test_validation_while_pretraining_reaches_tensorboard_metrics_json_and_the_record(
    pretraining_cfg, bleu
):
    cfg = pretraining_cfg("DATASETS.TEST", '("scenes_val_captions",)', "TEST.EVAL_PERIOD", 2)
    train(cfg)
    rows = [row for row in logged(cfg) if "validation/loss" in row]
    assert rows[-1]["iteration"] == 4 and rows[-1]["captions/BLEU_4"] == 12.5
    records = read_records(cfg.OUTPUT_DIR)
    assert [record.iteration for record in records] == [2, 4]
    losses = records[-1].metrics["validation"]
    assert losses.keys() == {"loss_captioning_forward", "loss_captioning_backward", "loss"}
    assert losses["loss"] == rows[-1]["validation/loss"]
    events = b"".join(
        path.read_bytes() for path in Path(cfg.OUTPUT_DIR).glob("events.out.tfevents*")
    )
    assert b"validation/loss" in events


def test_the_validation_loss_does_not_depend_on_the_batch_size_of_evaluation(pretraining_cfg, bleu):
    losses = []
    for batch_size in (1, 3):
        cfg = pretraining_cfg("DATALOADER.TEST_BATCH_SIZE", batch_size)
        torch.manual_seed(0)
        model = Trainer.build_model(cfg)
        evaluator = Trainer.build_evaluator(cfg, "scenes_val_captions")
        loader = Trainer.build_test_loader(cfg, "scenes_val_captions")
        assert max(map(len, loader)) == batch_size
        losses.append(inference_on_dataset(model, loader, evaluator)["validation"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_predictions_on_a_dataset_named_by_its_path_stay_in_the_run_folder(pretraining_cfg):
    cfg = pretraining_cfg()
    folder = Trainer.build_evaluator(cfg, "scenes_val_captions").output_folder
    assert folder == Path(cfg.OUTPUT_DIR) / "inference" / "scenes_val_captions"
    name = "pairs:../../elsewhere/images"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).evaluator_type = "captions"
    folder = Trainer.build_evaluator(cfg, name).output_folder
    assert folder == Path(cfg.OUTPUT_DIR) / "inference" / "pairs_images"


def test_skipped_images_are_reported_at_the_end_of_training(
    pretraining_cfg, scenes, tmp_path, caplog
):
    content = json.loads((scenes / "annotations" / "captions_train.json").read_text())
    for image in content["images"]:
        shutil.copy(scenes / "train" / image["file_name"], tmp_path)
    (tmp_path / content["images"][0]["file_name"]).write_bytes(b"no image")
    (tmp_path / "captions.json").write_text(json.dumps(content))
    train(pretraining_cfg("DATASETS.TRAIN", f"('captions:{tmp_path}/captions.json:{tmp_path}',)"))
    last = [
        record.getMessage()
        for record in caplog.records
        if "Left out of training" in record.getMessage()
    ][-1]
    assert "1 x image cannot be read" in last


def test_one_seed_gives_one_result(detector_cfg):
    weights = []
    for _ in range(2):
        cfg = detector_cfg("DATASETS.TEST", "()")
        seed_all_rng(cfg.SEED)
        train(cfg)
        weights.append(final_weights(cfg))
        shutil.rmtree(cfg.OUTPUT_DIR)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_resumed_run_goes_on_with_its_weights_optimizer_schedule_and_iteration(detector_cfg):
    options = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 2)
    train(detector_cfg(*options))
    run = Path(detector_cfg(*options).OUTPUT_DIR)
    (run / "last_checkpoint").write_text("model_0000001.pth")

    resumed = Trainer(detector_cfg(*options))
    resumed.resume_or_load(resume=True)
    saved = torch.load(run / "model_0000001.pth", weights_only=True)
    assert resumed.start_iter == 2
    assert resumed.scheduler.last_epoch == 2
    assert (
        resumed.optimizer.param_groups[0]["lr"]
        == saved["trainer"]["step"]["optimizer"]["param_groups"][0]["lr"]
    )
    momenta = resumed.optimizer.state_dict()["state"]
    assert momenta
    wanted = saved["trainer"]["step"]["optimizer"]["state"]
    assert all(torch.equal(momenta[key]["exp_avg"], wanted[key]["exp_avg"]) for key in momenta)


@pytest.fixture
def found(detector_cfg) -> Callable:
    """Evaluates an untrained detector without a score threshold; takes ``KEY, VALUE`` pairs."""

    def found(*options: object, evaluators: list | None = None) -> dict[str, dict[str, float]]:
        anything = (
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 MODEL.ROI_HEADS.NMS_THRESH_TEST 1.0".split()
        )
        cfg = detector_cfg(*anything, "TEST.DETECTIONS_PER_IMAGE", 200, *options)
        torch.manual_seed(0)
        return Trainer.test(cfg, Trainer.build_model(cfg), evaluators)

    return found


def test_numbers_and_results_file_are_those_of_detectron2s_own_evaluation(found, tmp_path):
    ours, theirs = (
        found(),
        found("TEST.METRICS_LIBRARY", "reference", "OUTPUT_DIR", tmp_path / "theirs"),
    )
    assert ours.keys() == theirs.keys() == {"bbox", "segm"} and ours["bbox"]["AR100"] > 0
    for task, numbers in theirs.items():
        assert {name: ours[task][name] for name in numbers} == pytest.approx(
            numbers, abs=1e-9, nan_ok=True
        )
    file = "inference/scenes_val/coco_instances_results.json"
    content = [json.loads((tmp_path / folder / file).read_text()) for folder in ("run", "theirs")]
    assert content[0] == content[1] and any(
        len(entry["segmentation"]["counts"]) > 9 for entry in content[0]
    )


def test_in_bf16_boxes_and_scores_are_those_of_the_models_own_forward(found, tmp_path):
    content = []
    for library in ("hotcoco", "reference"):
        found(*BF16, "TEST.METRICS_LIBRARY", library, "OUTPUT_DIR", tmp_path / library)
        rows = json.loads(
            (tmp_path / library / "inference/scenes_val/coco_instances_results.json").read_text()
        )
        content.append([(row["score"], row["bbox"]) for row in rows])
    assert content[0] == content[1]


def test_masks_are_pasted_for_other_evaluators_alone(found, monkeypatch):
    def refuse(*args):
        raise AssertionError("masks were pasted")

    pasted = found(evaluators=[COCOEvaluator("scenes_val", use_fast_impl=False)])
    monkeypatch.setattr("detectron2.structures.ROIMasks.to_bitmasks", refuse)
    assert found()["segm"]["AP"] == pytest.approx(pasted["segm"]["AP"], abs=1e-9)


def test_a_model_is_in_training_mode_after_an_evaluation_as_before(detector_cfg):
    cfg = detector_cfg()
    model = Trainer.build_model(cfg).train()
    Trainer.test(cfg, model)
    assert model.training and model.roi_heads.training


def test_every_test_dataset_has_its_results(found):
    results = found("DATASETS.TEST", '("scenes_val", "scenes_train")')
    assert results.keys() == {"scenes_val", "scenes_train"} and results["scenes_train"].keys() == {
        "bbox",
        "segm",
    }


def test_seconds_in_training_steps_add_up_over_resumed_parts_and_reach_the_record(
    detector_cfg, monkeypatch
):
    clock = SimpleNamespace(
        perf_counter=map(float, itertools.count()).__next__, monotonic=time.monotonic
    )
    monkeypatch.setattr("virtex_det.engine.trainer.time", clock)
    options = ("SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2)
    train(detector_cfg(*options))
    run = Path(detector_cfg().OUTPUT_DIR)
    assert [record.training_seconds for record in read_records(run)] == [2, 4]
    (run / "last_checkpoint").write_text("model_0000001.pth")
    train(detector_cfg(*options), resume=True)
    assert read_records(run)[-1].training_seconds == 4


def test_a_checkpoint_that_does_not_tell_its_seconds_leaves_them_unknown(detector_cfg):
    options = ("SOLVER.CHECKPOINT_PERIOD", 2)
    train(detector_cfg(*options, "DATASETS.TEST", "()"))
    run = Path(detector_cfg().OUTPUT_DIR)
    content = torch.load(run / "model_0000001.pth", weights_only=True)
    del content["trainer"]["training_seconds"]
    torch.save(content, run / "model_0000001.pth")
    (run / "last_checkpoint").write_text("model_0000001.pth")
    train(detector_cfg(*options), resume=True)
    assert read_records(run)[-1].training_seconds is None


def test_a_resumed_run_ignores_model_weights(detector_cfg):
    train(detector_cfg("DATASETS.TEST", "()"))
    resumed = Trainer(detector_cfg("DATASETS.TEST", "()", "MODEL.WEIGHTS", "/nowhere.pth"))
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 4


def test_the_last_checkpoint_of_another_folder_is_not_picked_up(
    detector_cfg, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    torch.save({"model": {}, "iteration": 99}, "model_final.pth")
    Path("last_checkpoint").write_text("model_final.pth")
    trainer = Trainer(detector_cfg())
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 0


def test_a_full_disk_keeps_the_last_good_checkpoint(detector_cfg, monkeypatch):
    options = ("DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 2)
    save = torch.save

    def fail_on_the_second(*args, **kwargs):
        if (run / "model_0000001.pth").exists():
            raise OSError(28, "No space left on device")
        save(*args, **kwargs)

    run = Path(detector_cfg().OUTPUT_DIR)
    monkeypatch.setattr(torch, "save", fail_on_the_second)
    with pytest.raises(UserError, match="No space left"):
        train(detector_cfg(*options))
    assert (run / "last_checkpoint").read_text() == "model_0000001.pth"
    torch.load(run / "model_0000001.pth", weights_only=True)
    assert not (run / "model_final.pth").exists()


def _ranks_agree(cfg) -> None:
    torch.manual_seed(torch.distributed.get_rank())  # as default seeding does: every rank its own
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    _assert_equal_over_ranks(trainer)
    trainer.train()
    _assert_equal_over_ranks(trainer)


def _assert_equal_over_ranks(trainer: Trainer) -> None:
    flat = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    both = [torch.empty_like(flat) for _ in range(2)]
    torch.distributed.all_gather(both, flat)
    assert torch.equal(*both)


@pytest.mark.slow
def test_two_processes_hold_the_same_weights_from_random_init_to_the_last_step(detector_cfg):
    cfg = detector_cfg("DATASETS.TEST", "()", "SOLVER.MAX_ITER", 2)
    launch_processes(_ranks_agree, cfg, processes=2)
    assert (Path(cfg.OUTPUT_DIR) / "model_final.pth").exists()


def test_convolutions_on_the_cpu_keep_channels_last(detector_cfg):
    model = Trainer.build_model(detector_cfg())
    kernels = [
        parameter
        for parameter in model.parameters()
        if parameter.dim() == 4 and parameter.shape[2] > 1
    ]
    assert kernels and all(
        kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels
    )


def test_bf16_trains_evaluates_and_saves_float32(detector_cfg):
    cfg = detector_cfg(*BF16)
    train(cfg)
    assert read_records(cfg.OUTPUT_DIR)
    assert all(value.dtype != torch.bfloat16 for value in final_weights(cfg).values())


def test_mixed_precision_on_a_cpu_is_bfloat16(detector_cfg, tmp_path):
    losses = []
    for number, options in enumerate([("SOLVER.AMP.ENABLED", True), BF16, ()]):
        words = "MODEL.DEVICE cpu DATASETS.TEST () OUTPUT_DIR".split()
        cfg = detector_cfg(*options, *words, tmp_path / str(number))
        seed_all_rng(0)
        trainer = train(cfg)
        losses.append(logged(cfg)[-1]["total_loss"])
    assert trainer.cfg.SOLVER.AMP.DTYPE == "float16"
    assert losses[0] == losses[1] != losses[2]


def test_precise_bn_runs_before_every_checkpoint(detector_cfg, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "virtex_det.engine.hooks.PreciseBN.update_stats",
        lambda hook: seen.append(hook.trainer.iter),
    )
    train(
        detector_cfg(
            "TEST.PRECISE_BN.ENABLED", True, "SOLVER.CHECKPOINT_PERIOD", 3, "DATASETS.TEST", "()"
        )
    )
    assert seen == [2, 3]


def test_precise_bn_takes_the_images_that_training_has_loaded(detector_cfg, monkeypatch):
    loads = []
    monkeypatch.setattr(
        "virtex_det.data.build.load_training_set",
        lambda cfg: loads.append(1) or load_training_set(cfg),
    )
    train(
        detector_cfg(
            "TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1, "DATASETS.TEST", "()"
        )
    )
    assert loads == [1]


@pytest.mark.parametrize(
    "options",
    [
        ("SOLVER.LR_SCHEDULER_NAME", "Cosine"),
        ("SOLVER.STEPS", (3, 2), "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR"),
    ],
)
def test_a_schedule_that_cannot_be_is_an_error(detector_cfg, options):
    with pytest.raises(UserError, match=rf"{re.escape(options[0])} is .* but"):
        Trainer(detector_cfg(*options))


def test_a_data_set_without_a_file_keeps_its_version_under_detectron2s_own_evaluator(
    detector_cfg, scenes
):
    names = ("version_evaluated", "version_not")
    for name in names:
        DatasetCatalog.register(name, lambda: load_dataset("scenes_val"))
        MetadataCatalog.get(name).set(
            thing_classes=MetadataCatalog.get("scenes_val").thing_classes, evaluator_type="coco"
        )
    try:
        Trainer.build_evaluator(detector_cfg("TEST.METRICS_LIBRARY", "reference"), names[0])
        assert "json_file" in MetadataCatalog.get(names[0]).as_dict(), (
            "what this test is about happens no more"
        )
        assert dataset_version(names[0]) == dataset_version(names[1])
    finally:
        for name in names:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
