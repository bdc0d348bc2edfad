import dataclasses
import hashlib
import json
import os
from functools import reduce
from pathlib import Path

import pytest
import yaml

from tests.earlier_config import earlier_config
from virtex_det.engine import argument_parser, load_config, setup
from virtex_det.engine.run_folder import read_start
from virtex_det.errors import UserError

CONFIG = "configs/detectron2/scenes_segm.yaml"


@pytest.fixture(autouse=True)
def in_root(monkeypatch, request, scenes):
    monkeypatch.chdir(request.config.rootpath)


def arguments(*words):
    return argument_parser().parse_args(["--config-file", CONFIG, *map(str, words)])


def test_overrides_win_over_the_file_and_the_file_over_the_defaults():
    cfg = load_config(CONFIG, ["SOLVER.MAX_ITER", "7"])
    assert cfg.SOLVER.MAX_ITER == 7
    assert cfg.MODEL.RESNETS.DEPTH == 18
    assert cfg.is_frozen()


def test_a_missing_config_file_is_named():
    with pytest.raises(UserError, match="no config file nowhere.yaml"):
        load_config("nowhere.yaml", [])


def test_an_unknown_key_is_answered_with_the_nearest_ones():
    with pytest.raises(UserError, match=r"no config key SOLVER.MAX_ITERS.*SOLVER.MAX_ITER"):
        load_config(CONFIG, ["SOLVER.MAX_ITERS", "7"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("folder", r"folder is a folder, .*no \.pth, \.pt or \.safetensors file"),
        ("gone.pth", "No weights file at .*gone.pth"),
        ("notes.txt", "notes.txt is a text file, not weights"),
        ("empty.pth", r"empty.pth is empty \(0 bytes\)"),
        ("virtex://bicaptionin", "The model zoo has no weights 'bicaptionin'. Nearest names"),
    ],
)
@pytest.mark.parametrize("evaluates", [False, True])
def test_visibly_wrong_weights_are_refused_at_once(tmp_path, weights, message, evaluates):
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("My weights are elsewhere.")
    (tmp_path / "empty.pth").touch()
    path = weights if "://" in weights else tmp_path / weights
    words = ["--eval-only"] if evaluates else []
    with pytest.raises(UserError, match=message):
        setup(arguments(*words, "OUTPUT_DIR", tmp_path / "run", "MODEL.WEIGHTS", path))
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_in_a_file_is_answered_with_the_nearest_ones(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("MODEL:\n  RESNET:\n    DEPTH: 50\nVERSION: 2\n")
    with pytest.raises(UserError, match=r"no config key MODEL.RESNET\..*MODEL.RESNETS"):
        load_config(str(path), [])


def test_a_value_of_the_wrong_type_is_an_error():
    with pytest.raises(UserError, match="MAX_ITER"):
        load_config(CONFIG, ["SOLVER.MAX_ITER", "many"])


FLOATS = {"DATASETS.TRAIN_FRACTION": 1, "SOLVER.BASE_LR": 2, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0}


def floats_of(cfg):
    return {key: reduce(getattr, key.split("."), cfg) for key in FLOATS}


def test_whole_numbers_will_do_for_fractions_on_the_command_line():
    words = [word for key, value in FLOATS.items() for word in (key, str(value))]
    found = floats_of(load_config(CONFIG, words))
    assert found == FLOATS and all(isinstance(value, float) for value in found.values())


def test_whole_numbers_will_do_for_fractions_in_a_file_and_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "DATASETS:\n  TRAIN_FRACTION: 1\nSOLVER:\n  BASE_LR: 9\nVERSION: 2\n"
    )
    path = tmp_path / "config.yaml"
    path.write_text(
        "_BASE_: base.yaml\nSOLVER:\n  BASE_LR: 2\nMODEL:\n  ROI_HEADS:\n    SCORE_THRESH_TEST: 0\n"
    )
    found = floats_of(load_config(str(path), []))
    assert found == FLOATS and all(isinstance(value, float) for value in found.values())


@pytest.mark.parametrize(
    "words", [("SOLVER.MAX_ITER", "1.5"), ("DATASETS.TRAIN_FRACTION", "all"), ("SEED",)]
)
def test_other_types_are_refused_as_before(words):
    with pytest.raises(UserError, match="The config is invalid|has no value"):
        load_config(CONFIG, [*words])


def test_a_config_of_an_earlier_detectron2_is_converted(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("VERSION: 1\nMODEL:\n  WEIGHT: some.pth\n")
    cfg = load_config(str(path), [])
    assert cfg.VERSION == 2 and cfg.MODEL.WEIGHTS == "some.pth"


SCHEDULE = "SOLVER.MAX_ITER 180000 SOLVER.STEPS (120000,160000) SOLVER.WARMUP_ITERS 1000".split()


def schedule(*words):
    solver = load_config(CONFIG, [*SCHEDULE, *map(str, words)]).SOLVER
    return solver.MAX_ITER, solver.STEPS, solver.WARMUP_ITERS, solver.REFERENCE_FRACTION


@pytest.mark.parametrize(
    ("fraction", "reference", "expected"),
    [
        (0.1, 0, (180000, (120000, 160000), 1000, 0)),
        (0.1, 1, (18000, (12000, 16000), 100, 0.1)),
        (0.1, 0.1, (180000, (120000, 160000), 1000, 0.1)),
        (0.5, 0.1, (900000, (600000, 800000), 5000, 0.5)),
        (0.07, 1, (12600, (8400, 11200), 70, 0.07)),
        (1e-5, 1, (2, (1, 2), 0, 1e-5)),
        (1e-9, 1, (1, (1, 2), 0, 1e-9)),
    ],
)
def test_a_schedule_keeps_its_epochs_at_another_fraction(fraction, reference, expected):
    assert (
        schedule("DATASETS.TRAIN_FRACTION", fraction, "SOLVER.REFERENCE_FRACTION", reference)
        == expected
    )


def test_periods_stay_as_they_are_under_another_schedule():
    options = ["TEST.EVAL_PERIOD", "50", "SOLVER.CHECKPOINT_PERIOD", "60"]
    cfg = load_config(
        CONFIG, [*options, "DATASETS.TRAIN_FRACTION", "0.5", "SOLVER.REFERENCE_FRACTION", "1"]
    )
    assert (cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD) == (50, 60)


def test_rounding_lets_a_warm_up_end_in_time(tmp_path):
    words = ("SOLVER.WARMUP_ITERS", 999, "SOLVER.MAX_ITER", 1000, "OUTPUT_DIR", tmp_path)
    cfg = setup(arguments(*words, "DATASETS.TRAIN_FRACTION", 0.01, "SOLVER.REFERENCE_FRACTION", 1))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS) == (10, 9)


def test_a_warm_up_that_is_too_long_is_refused_under_another_schedule_too(tmp_path):
    words = ("SOLVER.WARMUP_ITERS", 1000, "SOLVER.MAX_ITER", 1000, "OUTPUT_DIR", tmp_path)
    with pytest.raises(UserError, match="warm-up must end"):
        setup(arguments(*words, "DATASETS.TRAIN_FRACTION", 0.01, "SOLVER.REFERENCE_FRACTION", 1))


def test_a_config_that_a_run_wrote_is_not_scaled_again(tmp_path):
    options = "DATASETS.TRAIN_FRACTION 0.1 SOLVER.REFERENCE_FRACTION 1 OUTPUT_DIR".split()
    solver = setup(arguments(*SCHEDULE, *options, tmp_path)).SOLVER
    log = (tmp_path / "log.txt").read_text()
    assert (
        "TRAIN_FRACTION 0.1: SOLVER.MAX_ITER 18000, STEPS (12000, 16000), WARMUP_ITERS 100" in log
    )
    own = str(tmp_path / "config.yaml")
    assert load_config(own, []).SOLVER == solver
    assert load_config(own, ["DATASETS.TRAIN_FRACTION", "1"]).SOLVER.MAX_ITER == 180000


@pytest.mark.parametrize("reference", [-0.1, 1.5, ".nan"])
def test_an_invalid_reference_fraction_is_an_error(reference, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"SOLVER:\n  REFERENCE_FRACTION: {reference}\n")
    with pytest.raises(UserError, match="SOLVER.REFERENCE_FRACTION is .*must be"):
        load_config(str(path), [])


def test_yaml_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    path, trace = tmp_path / "evil.yaml", tmp_path / "trace"
    path.write_text(f'OUTPUT_DIR: !!python/object/apply:os.system ["touch {trace}"]\nVERSION: 2\n')
    with pytest.raises(UserError, match="plain YAML"):
        load_config(str(path), [])
    assert not trace.exists()


def test_a_new_run_folder_gets_its_config_and_environment(tmp_path):
    cfg = setup(arguments("OUTPUT_DIR", tmp_path))
    again = load_config(str(tmp_path / "config.yaml"), [])
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    assert "PyTorch" in (tmp_path / "environment.txt").read_text()


def test_an_empty_output_dir_is_refused():
    with pytest.raises(UserError, match="OUTPUT_DIR is empty"):
        setup(arguments("OUTPUT_DIR", ""))


@pytest.mark.parametrize("marker", ["last_checkpoint", "metrics.json", "model_0000049.pth"])
def test_a_folder_that_holds_another_run_is_refused_unless_resumed(marker, tmp_path):
    (tmp_path / marker).write_text("model_0000049.pth")
    with pytest.raises(UserError, match="--resume"):
        setup(arguments("OUTPUT_DIR", tmp_path))


@pytest.fixture
def run(tmp_path):
    """The arguments of a run on half the labels, which has begun."""
    words = ("OUTPUT_DIR", tmp_path / "run", "DATASETS.TRAIN_FRACTION", 0.5)
    setup(arguments(*words))
    keep_checkpoint(tmp_path / "run")
    return words


def keep_checkpoint(folder, name="model_0000049.pth"):
    """Write an empty checkpoint and the file that names it."""
    (folder / name).touch()
    (folder / "last_checkpoint").write_text(name)


@pytest.mark.parametrize("mode", [["--resume"], ["--resume", "--eval-only"]])
@pytest.mark.parametrize(
    "change",
    [
        *[("DATASETS.TRAIN_FRACTION", 1), ("SEED", 4), ("DATASETS.SUBSET_STRATIFIED", True)],
        *[("MODEL.RESNETS.DEPTH", 50), ("INPUT.FORMAT", "BGR"), ("INPUT.MIN_SIZE_TRAIN", "(64,)")],
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    ],
)
def test_a_run_does_not_go_on_with_another_recipe_other_data_or_another_seed(run, mode, change):
    own = run[1] / "config.yaml"
    before = own.read_text()
    with pytest.raises(
        UserError, match=rf"began with other values:\n  {change[0]} (?s:.*)--config-file {own}"
    ):
        setup(arguments(*mode, *run, *change))
    assert own.read_text() == before
    setup(arguments(*mode, *run))


@pytest.mark.parametrize(
    "change",
    [
        *[("SOLVER.BASE_LR", 0.01), ("SOLVER.OPTIMIZER", "SGD"), ("SOLVER.IMS_PER_BATCH", 4)],
        *[
            ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1),
            ("SOLVER.WARMUP_ITERS", 3),
            ("MODEL.WEIGHTS", "other.pth"),
        ],
        ("TEST.PRECISE_BN.ENABLED", True),
    ],
)
def test_a_run_is_not_resumed_with_another_solver_or_start(run, change):
    with pytest.raises(UserError, match=rf"began with other values:\n  {change[0]} "):
        setup(arguments("--resume", *run, *change))
    assert (
        setup(arguments("--resume", "--eval-only", *run, *change)).dump()
        == (run[1] / "config.yaml").read_text()
    )


@pytest.mark.parametrize(
    "change",
    [
        *[
            ("TEST.DETECTIONS_PER_IMAGE", 5),
            ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.5),
            ("DATASETS.TEST", "()"),
        ],
        *[("DATALOADER.NUM_WORKERS", 1), ("SOLVER.CHECKPOINT_PERIOD", 7), ("TEST.EVAL_PERIOD", 9)],
        *[("SOLVER.MAX_ITER", 200), ("INPUT.CAPTION.MAX_LENGTH", 9)],
    ],
)
def test_a_run_goes_on_with_another_evaluation_or_machine_and_for_longer(run, change):
    cfg = setup(arguments("--resume", *run, *change))
    assert str(reduce(getattr, change[0].split("."), cfg)) == str(change[1])


def test_a_run_goes_on_from_the_same_weights_under_another_name(run, tmp_path):
    content = b"weights"
    (tmp_path / "moved.pth").write_bytes(content)
    report = {"path": "gone.pth", "sha256": hashlib.sha256(content).hexdigest(), "format": "moco"}
    (run[1] / "load_report.json").write_text(json.dumps(report))
    setup(arguments("--resume", *run, "MODEL.WEIGHTS", tmp_path / "moved.pth"))


def test_the_seed_that_a_run_drew_is_its_own(tmp_path):
    words = ("OUTPUT_DIR", tmp_path / "run", "SEED", -1)
    drawn = setup(arguments(*words)).SEED
    assert drawn >= 0 and load_config(str(tmp_path / "run/config.yaml"), []).SEED == drawn
    keep_checkpoint(tmp_path / "run")
    assert setup(arguments("--resume", *words)).SEED == drawn
    assert setup(arguments("--resume", "--eval-only", *words)).SEED == drawn


@pytest.mark.parametrize(
    "content", ["]", "SEED: [", "SOLVER: 3", "\x00", "- 1", "SOLVER:\n  MAX_ITER: many"]
)
@pytest.mark.parametrize("mode", [["--resume"], ["--resume", "--eval-only"]])
def test_a_damaged_config_of_a_run_is_one_screen(run, mode, content):
    (run[1] / "config.yaml").write_text(content)
    with pytest.raises(UserError, match="config"):
        setup(arguments(*mode, *run))


def test_a_config_of_a_run_that_is_cut_between_two_lines_is_called_damaged(run):
    own = run[1] / "config.yaml"
    lines = own.read_text().splitlines(keepends=True)
    own.write_text("".join(lines[: [line.startswith("TEST:") for line in lines].index(True)]))
    with pytest.raises(UserError, match=r"config\.yaml.* is damaged\.\n.*cut short"):
        setup(arguments("--resume", *run))


def test_a_run_whose_config_is_missing_does_not_go_on_with_any(run):
    (run[1] / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"config\.yaml.* is missing"):
        setup(arguments("--resume", *run))
    assert not (run[1] / "config.yaml").exists()
    setup(arguments("--resume", "--eval-only", *run))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe\n", b"sub/model_0000049.pth", b"..", b"x" * 5000, b"a\0b"]
)
def test_a_last_checkpoint_that_names_no_file_is_one_screen_with_those_that_are_there(run, content):
    (run[1] / "last_checkpoint").write_bytes(content)
    with pytest.raises(
        UserError, match=r"last_checkpoint names .*not a file in this folder.*model_0000049\.pth"
    ):
        setup(arguments("--resume", *run))


def test_a_run_that_was_killed_before_it_named_its_first_checkpoint_goes_on_from_it(run):
    (run[1] / "last_checkpoint").unlink()
    setup(arguments("--resume", *run))
    assert (run[1] / "last_checkpoint").read_text() == "model_0000049.pth"


def test_a_run_with_checkpoints_but_no_last_one_does_not_begin_anew(run):
    (run[1] / "last_checkpoint").unlink()
    (run[1] / "model_0000099.pth").touch()
    with pytest.raises(
        UserError,
        match=r"last_checkpoint is missing\. Checkpoints there: .*49\.pth, .*99\.pth\. To resume",
    ):
        setup(arguments("--resume", *run))
    (run[1] / "last_checkpoint").write_text("model_0000099.pth")
    setup(arguments("--resume", *run))


def test_amp_on_a_cpu_is_bfloat16_in_the_config_that_is_kept(tmp_path):
    cfg = setup(
        arguments("OUTPUT_DIR", tmp_path, "MODEL.DEVICE", "cpu", "SOLVER.AMP.ENABLED", True)
    )
    kept = load_config(str(tmp_path / "config.yaml"), [])
    assert cfg.SOLVER.AMP == kept.SOLVER.AMP == {"ENABLED": True, "DTYPE": "bfloat16"}


def test_an_evaluation_in_another_precision_than_the_runs_is_refused(run):
    # Other precisions than bfloat16 are of training alone.
    setup(arguments("--resume", "--eval-only", *run, "SOLVER.AMP.ENABLED", True))
    bfloat16 = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", "bfloat16")
    with pytest.raises(UserError, match="SOLVER.AMP.ENABLED False, now True"):
        setup(arguments("--resume", "--eval-only", *run, *bfloat16))


@pytest.mark.parametrize("mode", [["--resume"], ["--resume", "--eval-only"]])
@pytest.mark.parametrize(
    ("old", "new"), [("SOLVER.BACKBONE_LR", "SOLVER.BACKBONE_MULTIPLIER"), ("MODEL.BF16", "AMP")]
)
def test_a_run_that_began_with_old_names_goes_on(run, mode, old, new):
    path = run[1] / "config.yaml"
    path.write_text(earlier_config(load_config(str(path), [])))
    assert setup(arguments(*mode, *run)).SOLVER.BACKBONE_MULTIPLIER == 1
    with pytest.raises(UserError, match=rf"began with(?s:.*){new}"):
        setup(
            arguments("--resume", *run, old, {"SOLVER.BACKBONE_LR": 0.5, "MODEL.BF16": True}[old])
        )


def test_a_run_goes_on_for_longer_but_is_evaluated_under_its_own_schedule(run):
    longer = ("SOLVER.MAX_ITER", 200, "SOLVER.STEPS", "(7,)", "TEST.DETECTIONS_PER_IMAGE", 5)
    evaluated, began = (
        setup(arguments("--resume", "--eval-only", *run, *longer)),
        setup(arguments("--resume", *run)),
    )
    assert evaluated.SOLVER == began.SOLVER and evaluated.TEST.DETECTIONS_PER_IMAGE == 5
    assert setup(arguments("--resume", *run, *longer)).SOLVER.MAX_ITER == 200


def test_a_config_for_other_processes_is_scaled_before_it_is_kept(tmp_path):
    words = ("OUTPUT_DIR", tmp_path, "SOLVER.REFERENCE_WORLD_SIZE", 2)
    solver = setup(arguments(*words)).SOLVER
    assert (solver.IMS_PER_BATCH, solver.MAX_ITER, solver.REFERENCE_WORLD_SIZE) == (4, 300, 1)
    assert load_config(str(tmp_path / "config.yaml"), []).SOLVER == solver
    with pytest.raises(UserError, match="WORLD_SIZE 3 does not divide SOLVER.IMS_PER_BATCH 8"):
        setup(arguments(*words[:3], 3))


def test_evaluating_in_a_run_folder_keeps_the_config_of_the_run(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    (tmp_path / "config.yaml").write_text("of the run")
    setup(arguments("--eval-only", "OUTPUT_DIR", tmp_path))
    assert (tmp_path / "config.yaml").read_text() == "of the run"


def test_sync_bn_over_cpu_processes_is_refused_with_what_to_set(monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    from virtex_det.engine.preflight import check_devices

    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "SyncBN"])
    with pytest.raises(UserError, match="MODEL.RESNETS.NORM naiveSyncBN"):
        check_devices(cfg)


def test_a_warm_up_longer_than_the_run_is_refused_with_what_to_set(tmp_path):
    with pytest.raises(UserError, match="SOLVER.WARMUP_ITERS 1"):
        setup(arguments("OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 10))


def test_a_schedule_that_cannot_train_is_refused(tmp_path):
    with pytest.raises(UserError, match="SOLVER.MAX_ITER is 0(?s:.*)--eval-only"):
        setup(arguments("OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 0))


def test_a_missing_dataset_is_named_with_the_folder_and_the_variable(tmp_path):
    with pytest.raises(UserError, match=r"(?s)coco_2017_train.*DETECTRON2_DATASETS"):
        setup(arguments("OUTPUT_DIR", tmp_path, "DATASETS.TRAIN", '("coco_2017_train",)'))


def test_a_detector_with_another_number_of_classes_than_its_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="MODEL.ROI_HEADS.NUM_CLASSES 8"):
        setup(arguments("OUTPUT_DIR", tmp_path, "MODEL.ROI_HEADS.NUM_CLASSES", 80))


def test_evaluation_does_not_ask_for_training_data(tmp_path):
    setup(
        arguments("--eval-only", "OUTPUT_DIR", tmp_path, "DATASETS.TRAIN", '("coco_2017_train",)')
    )


PRETRAINING = "configs/pretrain/scenes_bicaptioning.yaml"


def pretraining(*words):
    return argument_parser().parse_args(["--config-file", PRETRAINING, *map(str, words)])


@pytest.fixture
def tokenizer(vocabulary, tmp_path):
    """A tokenizer file of this test's own."""
    path = tmp_path / "tokenizer.model"
    path.write_bytes(vocabulary.read_bytes())
    return path


@pytest.fixture
def pretraining_run(tokenizer, tmp_path):
    """The arguments of a pretraining run, which has begun."""
    words = ("OUTPUT_DIR", tmp_path / "run", "INPUT.CAPTION.TOKENIZER", tokenizer)
    setup(pretraining(*words))
    keep_checkpoint(tmp_path / "run")
    return words


def test_a_new_run_folder_gets_the_tokenizer(pretraining_run, tokenizer, tmp_path):
    assert (tmp_path / "run" / "vocabulary.model").read_bytes() == tokenizer.read_bytes()
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *("config.yaml", "environment.txt", "vocabulary.model", "log.txt", ".lock"),
        *("last_checkpoint", "model_0000049.pth"),
    }


def test_a_detectors_run_folder_has_no_tokenizer(tmp_path):
    setup(arguments("OUTPUT_DIR", tmp_path))
    assert not (tmp_path / "vocabulary.model").exists()


def test_a_run_goes_on_with_its_own_tokenizer(pretraining_run, tokenizer):
    assert setup(pretraining("--resume", *pretraining_run)).INPUT.CAPTION.TOKENIZER == str(
        tokenizer
    )


def test_a_run_does_not_go_on_with_another_tokenizer(pretraining_run, tokenizer, tmp_path):
    tokenizer.write_bytes(b"another")
    own = tmp_path / "run" / "vocabulary.model"
    with pytest.raises(
        UserError, match=rf"tokenizer\.model differs from {own}(?s:.*)KENIZER {own}"
    ):
        setup(pretraining("--resume", *pretraining_run))
    assert own.read_bytes() != b"another"
    setup(pretraining("--resume", *pretraining_run[:2], "INPUT.CAPTION.TOKENIZER", own))


@pytest.mark.parametrize("marker", [None, "metrics.json"])
def test_the_tokenizer_of_a_start_without_a_checkpoint_binds_nobody(tokenizer, tmp_path, marker):
    words = ("--resume", "OUTPUT_DIR", tmp_path / "run", "INPUT.CAPTION.TOKENIZER")
    setup(pretraining(*words, tokenizer))
    if marker:
        (tmp_path / "run" / marker).touch()
    better = tmp_path / "better.model"
    better.write_bytes(tokenizer.read_bytes())
    (tmp_path / "run" / "vocabulary.model").write_bytes(b"the wrong one")
    assert setup(pretraining(*words, better)).INPUT.CAPTION.TOKENIZER == str(better)
    assert (tmp_path / "run" / "vocabulary.model").read_bytes() == better.read_bytes()
    missing = str(tmp_path / "missing.model")
    with pytest.raises(UserError, match=f"Tokenizer file not found: '{missing}'"):
        setup(pretraining(*words, missing))


def test_a_task_of_virtex_takes_no_vocabulary_of_bert(tmp_path):
    tokenizer = ("INPUT.CAPTION.TOKENIZER", "google-bert/bert-base-uncased")
    with pytest.raises(UserError, match="is not a SentencePiece vocabulary"):
        setup(pretraining("OUTPUT_DIR", tmp_path / "run", *tokenizer))


def test_concepts_and_clusters_travel_with_the_run_too(tokenizer, tmp_path):
    given = {"CONCEPTS": tmp_path / "verbs.json", "CLUSTERS": tmp_path / "ten.json"}
    words = ["OUTPUT_DIR", tmp_path / "run", "INPUT.CAPTION.TOKENIZER", tokenizer]
    for key, path in given.items():
        path.write_text(key)
        words += [f"INPUT.CAPTION.{key}", path]
    setup(pretraining(*words))
    keep_checkpoint(tmp_path / "run")
    given["CONCEPTS"].unlink()
    cfg = setup(pretraining("--resume", *words))
    assert Path(cfg.INPUT.CAPTION.CONCEPTS).read_text() == "CONCEPTS"
    assert cfg.INPUT.CAPTION.CLUSTERS == str(given["CLUSTERS"])


@pytest.mark.parametrize("mode", ["--resume", "--eval-only"])
def test_a_run_folder_that_was_moved_alone_is_whole(pretraining_run, tokenizer, tmp_path, mode):
    (tmp_path / "run").rename(tmp_path / "moved")
    tokenizer.unlink()
    args = argument_parser().parse_args(
        [
            "--config-file",
            str(tmp_path / "moved/config.yaml"),
            mode,
            "OUTPUT_DIR",
            str(tmp_path / "moved"),
        ]
    )
    cfg = setup(args)
    assert (
        cfg.INPUT.CAPTION.TOKENIZER == str(tmp_path / "moved" / "vocabulary.model")
        and cfg.is_frozen()
    )


def test_a_new_run_does_not_take_up_a_tokenizer_that_lies_in_its_folder(tokenizer, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "vocabulary.model").write_bytes(b"of an earlier run")
    setup(pretraining("OUTPUT_DIR", tmp_path / "run", "INPUT.CAPTION.TOKENIZER", tokenizer))
    assert (tmp_path / "run" / "vocabulary.model").read_bytes() == tokenizer.read_bytes()


def test_datasets_may_be_named_by_where_they_lie(tmp_path, scenes, tokenizer):
    name = f"captions:{scenes}/annotations/captions_val.json:{scenes}/val"
    words = ("OUTPUT_DIR", tmp_path / "run", "INPUT.CAPTION.TOKENIZER", tokenizer)
    cfg = setup(pretraining(*words, "DATASETS.TRAIN", f"('{name}',)"))
    assert cfg.DATASETS.TRAIN == (name,)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "\x00"])
def test_a_damaged_report_of_the_start_is_one_screen(run, content):
    (run[1] / "load_report.json").write_text(content)
    with pytest.raises(UserError, match=r"load_report.json is damaged"):
        read_start(run[1])


SPECIAL = {
    "a pipe": lambda path: os.mkfifo(path),
    "a broken link": lambda path: path.symlink_to("/nowhere/at/all"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
RUN_FILES = (
    "config.yaml last_checkpoint classes.json load_report.json metrics.json results.json "
    "results.jsonl left_out.json cost.json environment.txt log.txt .lock model_0000049.pth "
    "model_final.pth vocabulary.model report.html"
).split()


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", RUN_FILES)
def test_a_special_file_in_the_place_of_a_runs_file_is_named_and_not_read(run, name, kind):
    path = run[1] / name
    path.unlink(missing_ok=True)
    SPECIAL[kind](path)
    for mode in ([], ["--resume"]):
        with pytest.raises(UserError, match=rf"{path} is .*\nA run keeps a file under that name"):
            setup(arguments(*mode, *run))


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/run", "/tmp/../proc/1/run"])
def test_an_output_folder_that_cannot_be_made_is_named(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"is a file, not a folder|cannot be written: "):
        setup(arguments("OUTPUT_DIR", tmp_path / name))


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "a folder"])
def test_a_special_file_in_the_place_of_the_predictions_folder_is_named(run, kind):
    SPECIAL[kind](run[1] / "inference")
    with pytest.raises(UserError, match=r"inference is not a folder"):
        setup(arguments("--resume", *run))


def test_files_of_a_run_may_be_links_to_files(run, tmp_path):
    (run[1] / "config.yaml").rename(tmp_path / "elsewhere.yaml")
    (run[1] / "config.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    setup(arguments("--resume", *run))


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 77},
        {"train_fraction": 0.25},
        {"subset_seed": 5},
        {"train_datasets": ("other_train",)},
    ],
)
def test_records_of_another_run_are_not_taken_for_those_of_the_run_that_goes_on(
    run, make_record, other
):
    own = make_record(fraction=0.5)
    own.write(run[1])
    setup(arguments("--resume", *run))
    dataclasses.replace(own, **other).write(run[1])
    with pytest.raises(UserError, match=r"another run: its \w+ is .*\nPut the run.s own"):
        setup(arguments("--resume", *run))


def test_a_folder_with_only_the_records_of_a_run_is_refused_for_another(tmp_path, make_record):
    for name in ("run", "eval"):
        (tmp_path / name).mkdir()
    make_record().write(tmp_path / "run")
    with pytest.raises(UserError, match="holds another run"):
        setup(arguments("OUTPUT_DIR", tmp_path / "run"))
    dataclasses.replace(
        make_record(), evaluated={"path": "x.pth", "sha256": "", "format": ""}
    ).write(tmp_path / "eval")
    setup(arguments("OUTPUT_DIR", tmp_path / "eval"))
