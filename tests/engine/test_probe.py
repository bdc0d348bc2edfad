import argparse
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from PIL import Image, ImageDraw

from tests.checkpoint.layouts import LAYOUTS
from tests.checkpoint.originals import features, image, network
from virtex_det.benchmark import read_records
from virtex_det.checkpoint import FORMATS, TransferCheckpointer, follow_weights
from virtex_det.data.datasets.image_folders import register_image_folders
from virtex_det.engine import Trainer, evaluate, load_config
from virtex_det.engine.probe import extract_examples, follow_backbone, probe_svm
from virtex_det.errors import UserError
from virtex_det.protocols import protocol_id

joblib = pytest.importorskip("joblib", reason="scikit-learn is not installed")

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "probes"
TINY = (
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", 18, "DATALOADER.NUM_WORKERS", 0),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 8),
    *("INPUT.CLASSIFICATION.CROP_SIZE", 32, "INPUT.CLASSIFICATION.RESIZE", 36),
)
# Families whose files do not tell the pixels that their networks saw.
UNTOLD = ("detectron2_backbone", "detector", "virtex_det_pretraining")
FIRST_LAYOUTS = {layout.family: layout for layout in reversed(LAYOUTS.values())}


def config(name, *options):
    return load_config(str(CONFIGS / name), [*TINY, *options])


def config_for(path, *options):
    """The config of a probe that names only the weights."""
    args = argparse.Namespace(
        config_file=str(CONFIGS / "voc07_svm.yaml"), opts=["MODEL.WEIGHTS", path, *options]
    )
    args = follow_backbone(args)
    return follow_weights(load_config(args.config_file, args.opts))


@pytest.mark.parametrize("family", [entry.name for entry in FORMATS])
def test_features_of_every_family_are_those_of_the_original_and_nothing_is_set_by_hand(
    family, tmp_path
):
    layout = FIRST_LAYOUTS[family]
    layout.write(layout.content(network(layout.original)), tmp_path / "weights")
    cfg = config_for(str(tmp_path / "weights"), "MODEL.FOLLOW_WEIGHTS", family not in UNTOLD)
    model = Trainer.build_model(cfg).eval()
    TransferCheckpointer(model, cfg=cfg).load(cfg.MODEL.WEIGHTS)
    seen = image()[0] * model.pixel_std + model.pixel_mean
    with torch.no_grad():
        found = model.image_features([{"image": seen}])
    expected = features(layout.original)["res5"].mean((2, 3))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("family", UNTOLD)
def test_weights_that_do_not_tell_their_pixels_are_refused_with_what_to_set(family, tmp_path):
    layout = FIRST_LAYOUTS[family]
    layout.write(layout.content(network(layout.original)), tmp_path / "weights")
    with pytest.raises(UserError, match=r"MODEL.FOLLOW_WEIGHTS False, and INPUT.FORMAT"):
        config_for(str(tmp_path / "weights"))


COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}


def draw(path, *colours):
    """A disc of each colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (48, 40), (90, 140, 90))
    for index, colour in enumerate(colours):
        left = 2 + 22 * index
        ImageDraw.Draw(picture).ellipse((left, 10, left + 20, 30), fill=COLOURS[colour])
    picture.save(path)


@pytest.fixture
def voc(tmp_path):
    """VOC splits of twelve drawings each: red, blue, both, in turn."""
    shown = [("red",), ("blue",), ("red", "blue")] * 8
    for index, colours in enumerate(shown):
        draw(tmp_path / "JPEGImages" / f"{index}.jpg", *colours)
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        objects = "".join(f"<object><name>{colour}</name>{box}</object>" for colour in colours)
        path = tmp_path / "Annotations" / f"{index}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"<annotation><size><width>48</width><height>40</height></size>{objects}</annotation>"
        )
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    names = {"trainval": range(12), "test": range(12, 24)}
    for split, ids in names.items():
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(map(str, ids)))
        register_pascal_voc(f"drawn_{split}", str(tmp_path), split, 2007, tuple(COLOURS))
    yield "DATASETS.TRAIN", ("drawn_trainval",), "DATASETS.TEST", ("drawn_test",)
    for split in names:
        DatasetCatalog.remove(f"drawn_{split}")
        MetadataCatalog.remove(f"drawn_{split}")


def test_the_svm_probe_tells_drawings_apart_and_leaves_a_record(voc, tmp_path):
    cfg = config("voc07_svm.yaml", *voc, "OUTPUT_DIR", str(tmp_path / "run"))
    torch.manual_seed(0)
    with joblib.parallel_config(backend="sequential"):
        results = probe_svm(cfg, costs=(1.0,))
    record = read_records(tmp_path / "run")[-1]
    assert record.metrics == results
    assert results["svm"]["mAP"] == pytest.approx(100)
    assert record.protocol.startswith("scenes-linear-svm+DATASETS.TEST=drawn_test+")
    assert record.protocol.endswith("+COSTS=(1.0)"), "which is no key of the config"
    assert record.dataset == "drawn_test"
    assert record.weights["format"] == "random init"


def test_a_narrow_network_of_basic_blocks_follows_the_protocol_of_the_scenes(tmp_path):
    cfg = load_config(str(CONFIGS / "scenes_svm.yaml"), ["MODEL.DEVICE", "cpu"])
    weights = Trainer.build_model(cfg).state_dict()
    torch.save({"model": weights, "pixels": PIXELS}, tmp_path / "model_final.pth")
    options = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth")]
    args = argparse.Namespace(config_file=str(CONFIGS / "scenes_svm.yaml"), opts=options)
    args = follow_backbone(args)
    assert protocol_id(load_config(args.config_file, args.opts)) == "scenes-linear-svm"


def test_features_have_length_1_and_do_not_depend_on_the_batch(voc):
    model = Trainer.build_model(config("voc07_svm.yaml", *voc)).eval()
    parts = [
        extract_examples(
            config("voc07_svm.yaml", *voc, "DATALOADER.TEST_BATCH_SIZE", size), model, "drawn_test"
        )
        for size in (5, 12)
    ]
    assert parts[0].features.shape == (12, 64)
    assert abs((parts[0].features ** 2).sum(axis=1) - 1).max() < 1e-5
    assert abs(parts[0].features - parts[1].features).max() < 1e-5
    assert parts[0].labels.tolist() == [[1, -1], [-1, 1], [1, 1]] * 4


def test_a_part_of_the_training_images_is_refused_instead_of_recorded_wrongly(voc, tmp_path):
    options = ("DATASETS.TRAIN_FRACTION", 0.1, "OUTPUT_DIR", str(tmp_path))
    with pytest.raises(UserError, match="TRAIN_FRACTION 1.0"):
        probe_svm(config("voc07_svm.yaml", *voc, *options))


def test_several_processes_are_refused_instead_of_each_fitting_its_part(voc, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pytest.raises(UserError, match="(?s)one process, not in 2.*Leave out --num-gpus"):
        probe_svm(config("voc07_svm.yaml", *voc))


def test_a_config_of_another_model_is_refused(voc):
    with pytest.raises(UserError, match=r"voc07_svm\.yaml"):
        probe_svm(
            config(
                "voc07_svm.yaml", *voc, "MODEL.META_ARCHITECTURE", "MultilabelClassificationModel"
            )
        )


def test_two_training_sets_are_refused(voc, tmp_path):
    options = ("DATASETS.TRAIN", ("drawn_trainval", "drawn_test"), "OUTPUT_DIR", str(tmp_path))
    with pytest.raises(UserError, match="one data set"):
        probe_svm(config("voc07_svm.yaml", *voc, *options))


@pytest.fixture
def folders(tmp_path):
    """Training and validation drawings, a folder per colour."""
    names = []
    for split, count in {"train": 8, "val": 4}.items():
        for colour in COLOURS:
            for index in range(count):
                draw(tmp_path / split / colour / f"{index}.png", colour)
        names.append(f"drawn_folders_{split}")
        register_image_folders(names[-1], tmp_path / split)
    yield (
        *(
            "DATASETS.TRAIN",
            (names[0],),
            "DATASETS.TEST",
            (names[1],),
            "OUTPUT_DIR",
            str(tmp_path / "run"),
        ),
        *("MODEL.CLASSIFIER.NUM_CLASSES", 2, "SOLVER.IMS_PER_BATCH", 8, "TEST.EVAL_PERIOD", 0),
    )
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def train(cfg):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"]


def test_fine_tuning_learns_drawings_and_evaluation_alone_says_the_same(folders, tmp_path):
    cfg = config(
        *("inaturalist_2018_finetune.yaml", *folders, "SOLVER.MAX_ITER", 40),
        *("SOLVER.STEPS", (), "SOLVER.AMP.ENABLED", False),
    )
    torch.manual_seed(0)
    train(cfg)
    in_training = read_records(cfg.OUTPUT_DIR)[-1]
    assert in_training.protocol.startswith("inat18-finetune+DATASETS.TEST=drawn_folders_val+")
    assert in_training.metrics["classification"] == {"top1": 100.0, "top5": 100.0}
    evaluate(cfg, resume=True)
    alone = read_records(cfg.OUTPUT_DIR)[-1]
    assert alone.metrics["classification"] == in_training.metrics["classification"]
    assert alone.metrics["validation"]["loss"] == pytest.approx(
        in_training.metrics["validation"]["loss"], rel=1e-4
    )


def test_a_linear_probe_leaves_every_tensor_of_the_backbone_as_it_was(folders, tmp_path):
    torch.manual_seed(0)
    start = Trainer.build_model(config("imagenet_linear.yaml", *folders)).state_dict()
    start = {
        n: v + 0.1 if v.is_floating_point() else v
        for n, v in start.items()
        if n.startswith("backbone.")
    }
    torch.save({"model": start, "pixels": PIXELS}, tmp_path / "start.pth")
    options = ("SOLVER.MAX_ITER", 5, "INPUT.CLASSIFICATION.CROP_SCALE", (0.9, 1.0))
    weights = str(tmp_path / "start.pth")
    cfg = config("imagenet_linear.yaml", *folders, "MODEL.WEIGHTS", weights, *options)
    trained = train(cfg)
    assert all(
        torch.equal(trained[name], value)
        for name, value in start.items()
        if "num_batches" not in name
    )
    assert trained["classifier.bias"].any()
    record = read_records(cfg.OUTPUT_DIR)[-1]
    assert record.protocol.startswith("imagenet-linear+DATASETS.TEST=")
    assert set(record.metrics["classification"]) == {"top1", "top5"}
    assert record.weights["format"] == "virtex_det_pretraining"


PIXELS = {"format": "RGB", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}


def test_a_classifier_of_another_size_than_the_data_is_refused_before_training(folders):
    options = ("SOLVER.MAX_ITER", 1, "MODEL.CLASSIFIER.NUM_CLASSES", 1000)
    with pytest.raises(UserError, match="Set MODEL.CLASSIFIER.NUM_CLASSES 2"):
        train(config("imagenet_linear.yaml", *folders, *options))
