"""A run that was killed and resumed equals an uninterrupted run."""

import io
import itertools
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.env import seed_all_rng

from timing import kills
from virtex_det.benchmark import read_records
from virtex_det.engine import Trainer, evaluate
from virtex_det.engine.metrics_file import MetricsWriter
from virtex_det.errors import UserError

TIMES = ("time", "data_time", "rank_data_time", "eta_seconds")
RETINANET = [*itertools.chain(*kills.RETINANET.items())]


def train(cfg, *, resume: bool = False) -> Trainer:
    seed_all_rng(None if resume else 3)  # as another process finds its generators
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def assert_same(one: Path, other: Path, checkpoint: str = "model_final.pth") -> None:
    assert_equal(*(torch.load(folder / checkpoint, weights_only=True) for folder in (one, other)))
    assert logged(one) == logged(other)
    assert [str(record.metrics) for record in read_records(one)] == [
        str(record.metrics) for record in read_records(other)
    ]
    assert [record.iteration for record in read_records(one)] == [
        record.iteration for record in read_records(other)
    ]
    assert (one / "results.json").exists() == (other / "results.json").exists()


def assert_equal(one, other, path: str = "") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            if key not in (*TIMES, "training_seconds", "cpu_seconds"):
                assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{path}.{number}")
    else:
        assert one == other or one != one, path


def logged(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [
        {key: str(value) for key, value in row.items() if key not in TIMES} | {"keys": sorted(row)}
        for row in rows
    ]


@pytest.fixture
def resumed(tmp_path):
    """Trains a config, keeps a copy, resumes an earlier checkpoint; returns both folders."""

    def resumed(
        make_cfg, *options, checkpoint: str = "model_0000001.pth", damage=lambda folder: None
    ):
        cfg = make_cfg(*options)
        folder, whole = Path(cfg.OUTPUT_DIR), tmp_path / "whole"
        train(cfg)
        shutil.copytree(folder, whole)
        (folder / "last_checkpoint").write_text(checkpoint)
        damage(folder)
        train(cfg, resume=True)
        return whole, folder

    return resumed


def test_a_detector_that_samples_proposals_is_bit_equal(detector_cfg, resumed):
    options = (
        "SOLVER.CHECKPOINT_PERIOD 2 TEST.EVAL_PERIOD 2 DATALOADER.ASPECT_RATIO_GROUPING True"
    ).split()
    assert_same(*resumed(detector_cfg, *options))


def test_a_model_that_remembers_numbers_outside_its_tensors_is_bit_equal(detector_cfg, resumed):
    assert_same(*resumed(detector_cfg, *RETINANET, "SOLVER.CHECKPOINT_PERIOD", 2))


@pytest.mark.parametrize(
    "checkpoint", ["model_0000019.pth", "model_0000021.pth", "model_final.pth"]
)
def test_dropout_lookahead_workers_and_a_window_of_the_log_are_bit_equal(
    pretraining_cfg, resumed, checkpoint
):
    options = (
        "MODEL.TEXTUAL.DROPOUT 0.3 SOLVER.LOOKAHEAD.ENABLED True SOLVER.LOOKAHEAD.STEPS 3"
    ).split()
    length = ("SOLVER.MAX_ITER", 42, "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 2)
    assert_same(*resumed(pretraining_cfg, *options, *length, checkpoint=checkpoint))


def test_another_number_of_workers_is_bit_equal(pretraining_cfg, resumed):
    options = (
        "DATALOADER.NUM_WORKERS 2 SOLVER.CHECKPOINT_PERIOD 2 MODEL.TEXTUAL.DROPOUT 0.3".split()
    )
    whole, folder = resumed(pretraining_cfg, *options)
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    train(pretraining_cfg(*options[2:], "DATALOADER.NUM_WORKERS", 0), resume=True)
    assert_same(whole, folder)


def test_shards_that_workers_share_are_bit_equal(pretraining_cfg, resumed, scenes, tmp_path):
    for split in ("train", "unlabelled"):
        with tarfile.open(tmp_path / f"{split}.tar", "w") as tar:
            for image in sorted((scenes / split).iterdir()):
                tar.add(image, image.name)
                text = tarfile.TarInfo(f"{image.stem}.txt")
                text.size = len(caption := b"a small red circle above a big blue square")
                tar.addfile(text, io.BytesIO(caption))
    train = ("DATASETS.TRAIN", f"('shards:{tmp_path}/*.tar',)", "DATALOADER.SHARD_SHUFFLE_SIZE", 5)
    options = (
        "DATALOADER.NUM_WORKERS 2 SOLVER.MAX_ITER 9 SOLVER.CHECKPOINT_PERIOD 4 DATASETS.TEST () "
        "INPUT.CAPTION.PER_IMAGE 1"
    ).split()
    whole, folder = resumed(pretraining_cfg, *train, *options, checkpoint="model_0000003.pth")
    assert_same(whole, folder)


def cut_evaluation(folder: Path) -> None:
    """A kill between a checkpoint and the evaluation after it."""
    (folder / "results.jsonl").write_text(
        (folder / "results.jsonl").read_text().splitlines()[0][:-20]
    )
    (folder / "metrics.json").write_text("")


def cut_a_line(folder: Path) -> None:
    text = (folder / "metrics.json").read_text()
    (folder / "metrics.json").write_text(text[:-25])


def spoil_a_line(folder: Path) -> None:
    lines = (folder / "metrics.json").read_text().splitlines(keepends=True)
    spoilt = [
        '{"iteration": Infinity}\n',
        '{"iteration": null}\n',
        "[" * 100_000 + "\n",
        lines[0][:40] + "\n",
        "\n",
    ]
    (folder / "metrics.json").write_text("".join([*spoilt, *lines]))


def cut_the_last_record(folder: Path) -> None:
    lines = (folder / "results.jsonl").read_text().splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(lines[:-1]))
    (folder / "results.json").unlink()


@pytest.mark.parametrize(
    ("cut", "checkpoint"),
    [
        (cut_evaluation, "model_0000001.pth"),
        (cut_a_line, "model_0000001.pth"),
        (cut_a_line, "model_final.pth"),
        (spoil_a_line, "model_0000001.pth"),
        (cut_the_last_record, "model_final.pth"),
    ],
)
def test_what_a_kill_left_undone_or_half_done_is_done(detector_cfg, resumed, cut, checkpoint):
    options = ("SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2)
    assert_same(*resumed(detector_cfg, *options, checkpoint=checkpoint, damage=cut))


@pytest.mark.parametrize(
    "name", ["coco_instances_results.json", "results.json", "model_final.pth", "last_checkpoint"]
)
def test_a_run_that_ends_at_a_file_of_its_last_step_is_completed(
    detector_cfg, tmp_path, monkeypatch, name
):
    cfg = detector_cfg("SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2)
    train(cfg)
    shutil.move(cfg.OUTPUT_DIR, tmp_path / "whole")
    replace = Path.replace

    def end(file: Path, target: Path) -> None:
        if target.name == name:
            raise KeyboardInterrupt
        replace(file, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", end)
        train(cfg)
    train(cfg, resume=(Path(cfg.OUTPUT_DIR) / "last_checkpoint").exists())
    assert_same(tmp_path / "whole", Path(cfg.OUTPUT_DIR))


def test_a_complete_run_is_resumed_without_evaluating_again(detector_cfg, resumed, monkeypatch):
    evaluated = []
    test = Trainer.test.__func__
    monkeypatch.setattr(
        Trainer, "test", classmethod(lambda *args: evaluated.append(1) or test(*args))
    )
    assert_same(*resumed(detector_cfg, checkpoint="model_final.pth"))
    assert len(evaluated) == 1


def test_averages_of_batch_norm_are_bit_equal(detector_cfg, resumed):
    options = (
        "TEST.PRECISE_BN.ENABLED True TEST.PRECISE_BN.NUM_ITER 3 SOLVER.CHECKPOINT_PERIOD 2"
    ).split()
    assert_same(*resumed(detector_cfg, *options, "DATASETS.TEST", "()"))


def test_a_run_without_a_seed_goes_on_with_the_one_that_it_drew(pretraining_cfg, resumed):
    options = ("SEED", -1, "SOLVER.CHECKPOINT_PERIOD", 2, "MODEL.TEXTUAL.DROPOUT", 0.3)
    assert_same(*resumed(pretraining_cfg, *options))


@pytest.fixture
def begun(detector_cfg):
    """A run of four iterations, two of which are done."""

    def begun(*options):
        cfg = detector_cfg("SOLVER.CHECKPOINT_PERIOD", 2, *options)
        train(cfg)
        (Path(cfg.OUTPUT_DIR) / "last_checkpoint").write_text("model_0000001.pth")
        return cfg

    return begun


def test_a_run_whose_training_data_have_grown_is_not_resumed(begun, scenes, tmp_path, detector_cfg):
    path = tmp_path / "grows.json"
    content = json.loads((scenes / "annotations" / "instances_train.json").read_text())
    content["images"], last = content["images"][:-1], content["images"][-1]
    path.write_text(
        json.dumps(
            content
            | {"annotations": [a for a in content["annotations"] if a["image_id"] != last["id"]]}
        )
    )
    register_coco_instances("grows", {}, str(path), str(scenes / "train"))
    try:
        cfg = begun("DATASETS.TRAIN", "('grows',)", "DATASETS.TEST", "('scenes_val',)")
        path.write_text((scenes / "annotations" / "instances_train.json").read_text())
        DatasetCatalog.remove("grows")
        MetadataCatalog.remove("grows")
        register_coco_instances("grows", {}, str(path), str(scenes / "train"))
        with pytest.raises(
            UserError,
            match=r"other training data:\n  grows: .*'images': 11.*, now .*'images': 12",
        ):
            train(cfg, resume=True)
        evaluate(cfg, resume=True)
        assert read_records(cfg.OUTPUT_DIR)[-1].train_images == 11
    finally:
        DatasetCatalog.remove("grows")
        MetadataCatalog.remove("grows")


def test_files_that_are_older_than_the_checkpoint_are_said(begun, caplog):
    """So it is in a folder that was copied while its run was training."""
    cfg = begun("TEST.EVAL_PERIOD", 1)
    folder = Path(cfg.OUTPUT_DIR)
    train(cfg, resume=True)
    assert "copied while" not in caplog.text
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    for name in ("results.json", "results.jsonl"):
        (folder / name).unlink()
    train(cfg, resume=True)
    assert f"{folder}/results.json lacks the evaluations after 1 iterations. Was" in caplog.text
    assert [record.iteration for record in read_records(folder)] == [2, 3, 4]


def test_lines_of_the_log_that_are_older_than_the_checkpoint_are_said(tmp_path, caplog):
    writer = MetricsWriter(tmp_path / "metrics.json")
    writer.path.write_text('{"iteration": 19}\n{"iteration": 39}\n')
    for start in (60, 40, 20):
        writer.begin(start)
    assert "lost" not in caplog.text
    writer.path.write_text('{"iteration": 19}\n{"iteration": 39}\n')
    writer.begin(61)
    assert "metrics.json ends with iteration 39, and the run goes on with 61" in caplog.text


def test_a_run_is_not_resumed_from_the_checkpoint_of_another_run(begun, detector_cfg, tmp_path):
    cfg = begun()
    train(detector_cfg("SOLVER.CHECKPOINT_PERIOD", 2, "SEED", 5, "OUTPUT_DIR", tmp_path / "other"))
    shutil.copy(tmp_path / "other" / "model_0000001.pth", cfg.OUTPUT_DIR)
    with pytest.raises(UserError, match="its SEED is 5, and this run has SEED 0"):
        train(cfg, resume=True)


def test_a_run_is_not_resumed_by_another_number_of_processes(begun, monkeypatch):
    cfg = begun()
    path = Path(cfg.OUTPUT_DIR) / "model_0000001.pth"
    content = torch.load(path, weights_only=True)
    content["trainer"]["origin"]["processes"] = 8
    torch.save(content, path)
    with pytest.raises(UserError, match="began with 8 processes, now it has 1"):
        train(cfg, resume=True)


def test_a_run_does_not_take_the_load_report_of_another_run_for_its_own(begun):
    cfg = begun()
    path = Path(cfg.OUTPUT_DIR) / "load_report.json"
    own = path.read_text()
    path.write_text(json.dumps(json.loads(own) | {"format": "virtex", "sha256": "f" * 64}))
    with pytest.raises(UserError, match="format random init .* of another run: .* is virtex"):
        train(cfg, resume=True)
    path.unlink()
    train(cfg, resume=True)


@pytest.mark.parametrize(
    "damage", [{"recent": {"loss": 3}}, {"origin": 3}, {"training_seconds": "x"}]
)
def test_a_checkpoint_that_says_odd_things_of_its_training_is_damaged(begun, damage):
    cfg = begun()
    path = Path(cfg.OUTPUT_DIR) / "model_0000001.pth"
    content = torch.load(path, weights_only=True)
    content["trainer"] |= damage
    torch.save(content, path)
    [name] = damage
    with pytest.raises(UserError, match=f"Cannot resume.*its '{name}' is"):
        train(cfg, resume=True)
    with pytest.raises(UserError, match=f"is damaged: its '{name}' is"):
        evaluate(cfg, resume=True)


def test_a_run_that_goes_on_for_longer_learns_at_the_new_rates_and_its_records_say_so(
    begun, detector_cfg
):
    begun()
    cfg = detector_cfg("SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 8)
    rates = train(cfg, resume=True).storage.history("lr").values()
    uninterrupted = detector_cfg(
        "SOLVER.MAX_ITER", 8, "OUTPUT_DIR", cfg.OUTPUT_DIR + "_2", "DATASETS.TEST", "()"
    )
    assert rates[-6:] == train(uninterrupted).storage.history("lr").values()[-6:]
    assert read_records(cfg.OUTPUT_DIR)[-1].protocol.endswith("+schedule-changed-at=2")
    evaluate(cfg, resume=True)
    assert read_records(cfg.OUTPUT_DIR)[-1].protocol.endswith("+schedule-changed-at=2")


def test_a_run_is_not_resumed_for_less_than_it_has_done(begun, detector_cfg):
    begun()
    with pytest.raises(UserError, match=r"has done 2 iterations, and SOLVER.MAX_ITER is 1"):
        train(detector_cfg("SOLVER.MAX_ITER", 1, "SOLVER.WARMUP_ITERS", 0), resume=True)
