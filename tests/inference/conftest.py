"""Folders of trained runs, which are tiny models with random weights, and pictures for them."""

import dataclasses
import json
import shutil

import pytest
import torch

import virtex_det as vd
from virtex_det.config import with_options
from virtex_det.data.vocabulary import with_vocabulary_size
from virtex_det.engine import Trainer
from virtex_det.model_zoo import catalog

ZOO_NAME = "bicaptioning_R_50_L1_H2048"
TINY = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.TEXTUAL.VOCAB_SIZE": 240,
    "MODEL.TEXTUAL.HIDDEN_SIZE": 16,
    "MODEL.TEXTUAL.ATTENTION_HEADS": 2,
    "MODEL.TEXTUAL.FEEDFORWARD_SIZE": 32,
}


def read(path):
    return json.loads(path.read_text())


def write_run(cfg, folder):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.manual_seed(0)
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, folder / "model_final.pth")
    return folder


@pytest.fixture
def detector_run(detector_cfg, tmp_path):
    """The folder of a detector that finds many objects in any picture."""
    return write_run(detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0), tmp_path / "detector")


@pytest.fixture
def detector(detector_run):
    return vd.Detector(detector_run)


@pytest.fixture
def photos(scenes):
    return sorted((scenes / "val").glob("*.png"))


@pytest.fixture
def annotations(scenes):
    return scenes / "annotations" / "instances_val.json"


@pytest.fixture
def captioner_run(pretraining_cfg, vocabulary, tmp_path):
    """The folder of a captioning run, with only the files that it needs after a move."""
    cfg = with_vocabulary_size(pretraining_cfg("INPUT.CAPTION.TOKENIZER", str(vocabulary)))
    cfg = with_options(cfg, ["INPUT.CAPTION.TOKENIZER", "/gone/vocabulary.model"])
    folder = write_run(cfg, tmp_path / "captioner")
    shutil.copy(vocabulary, folder / "vocabulary.model")
    return folder


@pytest.fixture
def tiny_zoo(tmp_path, monkeypatch):
    """ZOO_NAME is of a tiny model, whose file lies on a mirror; returns that file."""
    from virtex_det import model_zoo

    tiny = [
        dataclasses.replace(record, network=TINY) if record.name == ZOO_NAME else record
        for record in catalog.catalog()
    ]
    monkeypatch.setattr(catalog, "catalog", lambda: tuple(tiny))
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("VIRTEX_DET_OFFLINE", "1")
    (tmp_path / "mirror").mkdir()
    torch.manual_seed(0)
    model = model_zoo.get(ZOO_NAME, trained=False, device="cpu")
    file = tmp_path / "mirror" / f"{ZOO_NAME}.pth"
    torch.save({"model": model.state_dict()}, file)
    return file
