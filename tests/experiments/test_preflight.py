import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from tests.earlier_config import earlier_config
from virtex_det.data.datasets import annotation_content
from virtex_det.engine import Trainer, load_config
from virtex_det.errors import UserError
from virtex_det.experiments.configs import config_of
from virtex_det.experiments.preflight import check_folders, check_sources, check_weights
from virtex_det.experiments.runs import Run
from virtex_det.text_files import read_bytes

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = ROOT / "configs/detectron2/scenes_segm.yaml"
PROBE = ROOT / "configs/probes/scenes_svm.yaml"
OPTIONS = (
    "MODEL.WEIGHTS",
    "",
    "DATASETS.SUBSET_SEED",
    "0",
    "SEED",
    "0",
    "DATASETS.TRAIN_FRACTION",
    "0.1",
)


def written(folder: Path, *options: str, **more) -> Run:
    """Return a run whose folder holds the config of other options."""
    folder.mkdir()
    (folder / "config.yaml").write_text(load_config(str(DETECTOR), [*OPTIONS, *options]).dump())
    return Run(folder, DETECTOR, OPTIONS, 150, "scenes_val", **more)


def test_a_zoo_name_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="Nearest names:.*bicaptioning_R_50_L1_H2048"):
        check_weights({"VirTex": "virtex://bicaptioning_R50_L1_H2048"})


def test_a_file_that_does_not_exist_is_answered_with_its_neighbours(tmp_path):
    (tmp_path / "moco_v2_800ep.pth").touch()
    with pytest.raises(
        UserError, match="weights of the start 'MoCo' do not exist.*nearest:.*moco_v2_800ep.pth"
    ):
        check_weights({"MoCo": str(tmp_path / "moco_v2_80ep.pth")})


def test_a_folder_and_a_text_are_called_what_they_are(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "notes.txt").write_text("My weights are elsewhere.")
    with pytest.raises(UserError, match=r"start 'MoCo': .*run is a folder, .*no \.pth"):
        check_weights({"MoCo": str(tmp_path / "run")})
    with pytest.raises(UserError, match=r"start 'MoCo': .*notes.txt is a text file, not weights"):
        check_weights({"MoCo": str(tmp_path / "notes.txt")})


def test_a_zoo_name_without_its_prefix_is_answered_with_it():
    with pytest.raises(UserError, match="virtex://bicaptioning_R_50_L1_H2048"):
        check_weights({"VirTex": "bicaptioning_R_50_L1_H2048"})


@pytest.mark.parametrize("address", ["http://[bad", "https://", "://x.pth"])
def test_an_invalid_address_is_named_before_anything_starts(address):
    with pytest.raises(UserError, match="The start 'mine' names an invalid address"):
        check_weights({"mine": address})


def test_weights_that_are_there_pass(tmp_path):
    torch.save({}, tmp_path / "some.pth")
    address = "https://example.org/some.pth"
    zoo = "virtex://bicaptioning_R_50_L1_H2048"
    check_weights(
        {"random": "", "file": str(tmp_path / "some.pth"), "address": address, "zoo": zoo}
    )


def test_a_config_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(
        UserError, match=r"no config file .*scene_segm.yaml.*nearest:.*scenes_segm.yaml"
    ):
        config_of(DETECTOR.with_name("scene_segm.yaml"), ())


def test_an_option_that_does_not_exist_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="SOLVER.BASE_RL.*BASE_LR"):
        config_of(DETECTOR, ("SOLVER.BASE_RL", "0.1"))


def test_data_that_are_not_there_are_missed_before_anything_begins():
    run = Run(Path("run"), DETECTOR, ("DATASETS.TRAIN", "('scenes_trian',)"), 150)
    with pytest.raises(UserError, match="scenes_trian"):
        check_sources([run])


def test_a_folder_of_the_same_config_passes(tmp_path):
    check_folders([written(tmp_path / "run")])


def test_where_a_run_lies_and_how_it_is_evaluated_meanwhile_does_not_matter(tmp_path):
    options = ("OUTPUT_DIR", "elsewhere", "TEST.EVAL_PERIOD", "7", "DATALOADER.NUM_WORKERS", "3")
    check_folders([written(tmp_path / "run", *options)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOLVER.BASE_LR", "0.5"),
        ("SEED", "4"),
        ("DATASETS.TRAIN_FRACTION", "0.5"),
        ("DATASETS.SUBSET_SEED", "4"),
        ("MODEL.WEIGHTS", "other.pth"),
    ],
)
def test_a_folder_of_another_config_is_refused_with_the_key(tmp_path, key, value):
    with pytest.raises(UserError, match=rf"another config(?s:.*){key}: {value} there"):
        check_folders([written(tmp_path / "run", key, value)])


def test_a_config_of_an_earlier_version_is_compared_in_what_it_has(tmp_path):
    run = written(tmp_path / "run")
    text = (run.folder / "config.yaml").read_text().replace("  CAPTIONS_PER_IMAGE: 0\n", "")
    (run.folder / "config.yaml").write_text(text + "PROTOCOL: scenes-segm\n")
    check_folders([run])


def test_old_names_in_a_config_of_an_earlier_version_are_read_as_the_new_ones(tmp_path):
    run = written(tmp_path / "run")
    cfg = load_config(str(DETECTOR), list(OPTIONS))
    (run.folder / "config.yaml").write_text(earlier_config(cfg) + "PROTOCOL: scenes-segm\n")
    check_folders([run])
    (run.folder / "config.yaml").write_text(earlier_config(cfg, bf16=True))
    with pytest.raises(
        UserError, match=r"(?s)another config.*SOLVER.AMP.ENABLED: True there, False in the matrix"
    ):
        check_folders([run])


def test_mixed_precision_on_this_machine_is_compared_as_it_was_trained(tmp_path):
    mixed = ("SOLVER.AMP.ENABLED", "True", "MODEL.DEVICE", "cpu")
    run = written(tmp_path / "run", *mixed, "SOLVER.AMP.DTYPE", "bfloat16")
    check_folders([dataclasses.replace(run, options=(*OPTIONS, *mixed))])
    with pytest.raises(UserError, match="SOLVER.AMP.ENABLED: True there"):
        check_folders([run])


@pytest.mark.parametrize("damage", ["", "SOLVER: {", "- a list"], ids=["empty", "half", "list"])
def test_a_folder_whose_config_is_damaged_is_named(tmp_path, damage):
    run = written(tmp_path / "run")
    (run.folder / "config.yaml").write_text(damage)
    with pytest.raises(UserError, match=r"run/config.yaml is damaged(?s:.*)Move its folder away"):
        check_folders([run])


def test_a_run_from_weights_that_were_made_anew_is_refused(tmp_path):
    weights = Run(tmp_path / "pretrain", DETECTOR, (), 4)
    weights.folder.mkdir()
    (weights.folder / "model_final.pth").write_bytes(b"first")
    run = written(tmp_path / "run", "MODEL.WEIGHTS", "moved/model_final.pth", after=weights)
    report = {
        "path": "model_final.pth",
        "sha256": hashlib.sha256(b"first").hexdigest(),
        "format": "virtex_det",
    }
    (run.folder / "load_report.json").write_text(json.dumps(report))
    check_folders([run])
    (weights.folder / "model_final.pth").write_bytes(b"second, made anew")
    with pytest.raises(UserError, match="started from an earlier content of .*model_final.pth"):
        check_folders([run])


def backbone_file(path: Path, *options: str) -> Path:
    """Save the model of a detector's config as a run would."""
    cfg = load_config(str(DETECTOR), [*options, "MODEL.DEVICE", "cpu"])
    torch.save({"model": Trainer.build_model(cfg).backbone.bottom_up.state_dict()}, path)
    return path


def test_weights_of_another_depth_are_found_before_any_run_begins(tmp_path, scenes):
    weights = backbone_file(
        tmp_path / "r50.pth", "MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.RES2_OUT_CHANNELS", "256"
    )
    run = Run(tmp_path / "run", DETECTOR, ("MODEL.WEIGHTS", str(weights)), 150)
    with pytest.raises(UserError, match=r"(?s)r50.pth .* does not fill the backbone.*ResNet-50"):
        check_sources([run])


def test_a_pretraining_of_another_depth_is_found_before_any_run_begins(
    tmp_path, scenes, vocabulary
):
    words = (
        "INPUT.CAPTION.TOKENIZER",
        str(vocabulary),
        "MODEL.TEXTUAL.VOCAB_SIZE",
        "240",
        "MODEL.RESNETS.DEPTH",
        "34",
    )
    before = Run(
        tmp_path / "pretrain", ROOT / "configs/pretrain/scenes_bicaptioning.yaml", words, 150
    )
    run = Run(
        tmp_path / "run",
        DETECTOR,
        ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth")),
        150,
        after=before,
    )
    with pytest.raises(UserError, match="(?s)does not fill the backbone.*ResNet-34"):
        check_sources([run, before])


def test_data_that_cannot_be_evaluated_are_found_before_any_run_begins(tmp_path, scenes):
    options = ("DATASETS.TEST", "('scenes_val_captions',)")
    with pytest.raises(UserError, match="evaluated as captions"):
        check_sources([Run(tmp_path / "run", DETECTOR, options, 150)])


def test_runs_in_order_pass_and_parse_each_annotation_file_once(tmp_path, scenes, monkeypatch):
    parsed = []
    monkeypatch.setattr(
        annotation_content,
        "read_bytes",
        lambda path, what: parsed.append(path.name) or read_bytes(path, what),
    )
    runs = [
        Run(tmp_path / f, DETECTOR, ("DATASETS.TRAIN_FRACTION", f), 150) for f in ("0.5", "1.0")
    ]
    check_sources(runs)
    assert sorted(parsed) == ["instances_train.json", "instances_val.json"]


def probe_of(folder: Path, *options: str, **fields) -> Run:
    return Run(folder, PROBE, options, None, "scenes_val", **fields)


def test_a_probe_in_order_passes_with_weights_and_without(tmp_path, scenes):
    weights = backbone_file(tmp_path / "r18.pth")
    check_sources([probe_of(tmp_path / "a"), probe_of(tmp_path, "MODEL.WEIGHTS", str(weights))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("DATASETS.TRAIN_FRACTION", "0.5"), "SVM probe trains on all"),
        (("DATASETS.TRAIN", "('scenes_train', 'scenes_val')"), "trains on one data set"),
        (("DATASETS.TEST", "('scenes_vla',)"), "scenes_vla"),
        (("DATASETS.TEST", "('scenes_val_captions',)"), "needs a dataset with boxes"),
    ],
)
def test_a_probe_that_would_fail_is_found_before_any_run_begins(tmp_path, scenes, options, message):
    with pytest.raises(UserError, match=message):
        check_sources([probe_of(tmp_path / "run", *options)])


def test_a_probe_without_scikit_learn_is_found_before_any_run_begins(tmp_path, scenes, monkeypatch):
    monkeypatch.setattr("virtex_det.evaluation.probes.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        check_sources([probe_of(tmp_path / "run")])


def test_a_pretraining_of_another_depth_than_the_probe_is_found(tmp_path, scenes, vocabulary):
    words = ("INPUT.CAPTION.TOKENIZER", str(vocabulary), "MODEL.TEXTUAL.VOCAB_SIZE", "240")
    config = ROOT / "configs/pretrain/scenes_bicaptioning.yaml"
    fits = Run(tmp_path / "pretrain", config, words, 150)
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
    check_sources([probe_of(tmp_path / "run", *weights, after=fits), fits])
    other = dataclasses.replace(fits, options=(*words, "MODEL.RESNETS.DEPTH", "34"))
    with pytest.raises(UserError, match="(?s)does not fill the backbone.*ResNet-34"):
        check_sources([probe_of(tmp_path / "run", *weights, after=other), other])


OTHER_PIXELS = (
    *("INPUT.FORMAT", "BGR", "MODEL.PIXEL_MEAN", "[100.0, 110.0, 120.0]"),
    *("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"),
)


def test_a_run_that_follows_the_pixels_of_its_weights_passes_with_any(tmp_path, scenes, vocabulary):
    words = ("INPUT.CAPTION.TOKENIZER", str(vocabulary), "MODEL.TEXTUAL.VOCAB_SIZE", "240")
    config = ROOT / "configs/pretrain/scenes_bicaptioning.yaml"
    before = Run(tmp_path / "pretrain", config, (*words, *OTHER_PIXELS), 150)
    model = Trainer.build_model(load_config(str(PROBE), ["MODEL.DEVICE", "cpu"])).state_dict()
    pixels = {"format": "BGR", "mean": [100.0, 110.0, 120.0], "std": [1.0, 1.0, 1.0]}
    torch.save({"model": model, "pixels": pixels}, tmp_path / "given.pth")
    runs = {tmp_path / "given.pth": None, tmp_path / "model_final.pth": before}
    for path, after in runs.items():
        follows = ("MODEL.WEIGHTS", str(path), "MODEL.FOLLOW_WEIGHTS")
        check_sources([probe_of(tmp_path / "run", *follows, "True", after=after)])
        with pytest.raises(UserError, match="(?s)contradicts the weights.*INPUT.FORMAT"):
            check_sources([probe_of(tmp_path / "run", *follows, "False", after=after)])
