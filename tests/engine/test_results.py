"""The records that evaluations leave."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from virtex_det.benchmark import read_records
from virtex_det.benchmark.records import rewrite_records, sha256_of
from virtex_det.data.datasets.versions import dataset_version
from virtex_det.data.training_set import training_part
from virtex_det.engine.results import recorded_results, write_records
from virtex_det.errors import UserError

METRICS = {"bbox": {"AP": 12.5, "APl": math.nan}}


def write(cfg, results=METRICS, **changes):
    """Write the records of an evaluation and return them."""
    from pathlib import Path

    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    facts = {"iteration": 4, "training_seconds": 2.04, "wall_seconds": 3.14, **changes}
    write_records(cfg, results, **facts)
    return read_records(cfg.OUTPUT_DIR)


def test_a_record_names_the_protocol_the_data_and_the_part_that_was_trained_on(detector_cfg):
    cfg = detector_cfg("DATASETS.TRAIN_FRACTION", 0.5, "DATASETS.SUBSET_SEED", 3)
    (record,) = write(cfg)
    part = training_part(cfg)
    assert record.protocol.startswith("scenes-segm+MODEL.FPN.OUT_CHANNELS=16+")
    assert (record.dataset, record.dataset_version) == ("scenes_val", dataset_version("scenes_val"))
    assert record.train_versions == {"scenes_train": dataset_version("scenes_train")}
    assert (record.train_fraction, record.subset_seed, record.seed) == (0.5, 3, 0)
    assert (record.train_images, record.manifest_sha256) == (part.images, part.manifest_sha256)
    assert record.train_images == 6 and len(record.manifest_sha256) == 64
    assert record.empty_categories == part.empty_categories
    assert (record.iteration, record.training_seconds, record.wall_seconds) == (4, 2.0, 3.1)
    assert record.metrics == {"bbox": {"AP": 12.5, "APl": None}}


def test_categories_without_an_instance_in_the_part_are_in_the_record(detector_cfg):
    (record,) = write(detector_cfg("DATASETS.TRAIN_FRACTION", 0.1))
    assert record.empty_categories


def test_another_part_has_another_manifest(detector_cfg):
    write(detector_cfg("DATASETS.TRAIN_FRACTION", 0.5, "DATASETS.SUBSET_SEED", 0))
    records = write(detector_cfg("DATASETS.TRAIN_FRACTION", 0.5, "DATASETS.SUBSET_SEED", 1))
    assert records[0].manifest_sha256 != records[1].manifest_sha256


def test_several_test_sets_have_a_record_each(detector_cfg):
    cfg = detector_cfg("DATASETS.TEST", ("scenes_val", "scenes_train"))
    records = write(cfg, {"scenes_val": METRICS, "scenes_train": METRICS})
    assert [record.dataset for record in records] == ["scenes_val", "scenes_train"]
    assert records[0].dataset_version != records[1].dataset_version


@pytest.mark.parametrize("seconds", [None, math.nan])
def test_a_training_time_that_is_not_known_is_none(detector_cfg, seconds):
    (record,) = write(detector_cfg(), training_seconds=seconds)
    assert record.training_seconds is None


@pytest.fixture
def evaluated(tmp_path):
    """The load report of a run's weights, beside that of what the run started from."""
    from virtex_det.checkpoint import LoadReport

    folder = tmp_path / "other"
    folder.mkdir()
    start = {"path": "virtex.pth", "sha256": "5" * 64, "format": "virtex", "loaded": []}
    (folder / "load_report.json").write_text(json.dumps(start))
    return LoadReport("virtex_det", path=str(folder / "model_final.pth"), sha256="6" * 64)


def test_evaluation_does_without_training_data_that_are_not_here(detector_cfg, evaluated):
    (record,) = write(detector_cfg("DATASETS.TRAIN", ("coco_2017_train",)), evaluated=evaluated)
    assert (record.train_images, record.train_versions, record.manifest_sha256) == (None, {}, "")
    assert record.train_datasets == ("coco_2017_train",)


def test_training_data_that_vanished_in_training_are_an_error(detector_cfg):
    with pytest.raises(UserError):
        write(detector_cfg("DATASETS.TRAIN", ("coco_2017_train",)))


def test_evaluated_weights_and_what_they_started_from_are_in_the_record(detector_cfg, evaluated):
    (record,) = write(detector_cfg(), evaluated=evaluated)
    assert record.evaluated == {"path": evaluated.path, "sha256": "6" * 64, "format": "virtex_det"}
    assert record.weights == {"path": "virtex.pth", "sha256": "5" * 64, "format": "virtex"}


def test_the_text_encoder_of_a_start_is_in_the_record(detector_cfg, evaluated):
    named = {"text_encoder": "MiniLM, tuned for sentence embeddings"}
    report = Path(evaluated.path).with_name("load_report.json")
    report.write_text(json.dumps(json.loads(report.read_text()) | named))
    (record,) = write(detector_cfg(), evaluated=evaluated._replace(**named))
    assert record.weights["text_encoder"] == named["text_encoder"]
    assert record.evaluated["text_encoder"] == named["text_encoder"]


def test_a_start_is_in_the_record_although_the_folder_has_lost_its_report(detector_cfg):
    start = {"sha256": "5" * 64, "format": "virtex"}
    origin = {"data": {}, "images": {"number": 1, "manifest sha256": ""}, "empty categories": []}
    (record,) = write(detector_cfg(), origin=origin | {"start": start})
    assert record.weights == {"path": "", **start}


def test_a_run_that_was_moved_finds_its_records(detector_cfg, tmp_path):
    write(detector_cfg())
    (tmp_path / "run").rename(tmp_path / "moved")
    cfg = detector_cfg("OUTPUT_DIR", tmp_path / "moved", "DATALOADER.NUM_WORKERS", 1)
    assert recorded_results(cfg, 4)["bbox"]["AP"] == 12.5
    cfg = detector_cfg("OUTPUT_DIR", tmp_path / "moved", "TEST.DETECTIONS_PER_IMAGE", 7)
    assert recorded_results(cfg, 4) is None


def test_a_record_of_an_earlier_version_is_found(detector_cfg, tmp_path):
    cfg = detector_cfg()
    (record,) = write(cfg)
    earlier = dataclasses.replace(record, config_sha256=sha256_of(cfg.dump()))
    rewrite_records(cfg.OUTPUT_DIR, [earlier])
    assert recorded_results(cfg, 4)["bbox"]["AP"] == 12.5


def test_a_record_of_data_that_have_changed_is_not_taken(detector_cfg):
    cfg = detector_cfg()
    (record,) = write(cfg)
    version = {"images": 4, "sha256": "0" * 64}
    rewrite_records(cfg.OUTPUT_DIR, [dataclasses.replace(record, dataset_version=version)])
    assert recorded_results(cfg, 4) is None


def test_pretraining_has_a_record_without_a_protocol(pretraining_cfg):
    cfg = pretraining_cfg("DATASETS.TEST", ("scenes_val_captions",))
    (record,) = write(cfg, {"captioning": {"loss": 3.0}})
    assert (record.protocol, record.train_images, record.empty_categories) == ("", 12, ())
