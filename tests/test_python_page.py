"""docs/python.md: every example runs, in its order, on tiny models."""

import dataclasses
import json
import re
import shutil

import pytest
import torch
import torchvision
from PIL import Image

from tests.conftest import ROOT
from virtex_det.checkpoint import convert
from virtex_det.engine import Trainer
from virtex_det.model_zoo import catalog

NAME = "bicaptioning_R_50_L1_H2048"
PAGE = (ROOT / "docs" / "python.md").read_text()
TINY = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
    "MODEL.TEXTUAL.VOCAB_SIZE": 240,
    "MODEL.TEXTUAL.HIDDEN_SIZE": 16,
    "MODEL.TEXTUAL.ATTENTION_HEADS": 2,
    "MODEL.TEXTUAL.FEEDFORWARD_SIZE": 32,
}


def examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def tiny_zoo(tmp_path, monkeypatch):
    """The page's zoo name is a tiny model, which is on a mirror in VirTex's layout."""
    from virtex_det import model_zoo

    records = [
        dataclasses.replace(record, network=TINY) if record.name == NAME else record
        for record in catalog.catalog()
    ]
    monkeypatch.setattr(catalog, "catalog", lambda: tuple(records))
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    torch.manual_seed(0)
    model = model_zoo.get(NAME, trained=False, device="cpu")
    torch.save({"model": model.state_dict()}, tmp_path / "ours.pth")
    convert(str(tmp_path / "ours.pth"), tmp_path / "mirror" / f"{NAME}.pth", to="virtex")


@pytest.fixture
def a_folder_as_on_the_page(detector_cfg, scenes, vocabulary, tmp_path, monkeypatch, tiny_zoo):
    """All files that the page names, with a detector that finds something, and its results."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copy(vocabulary, "coco_10k.model")
    shutil.copytree(scenes / "val", "photos")
    Image.open(next((scenes / "val").glob("*.png"))).save("photo.jpg")
    torch.save(torchvision.models.resnet50().state_dict(), "resnet50.pth")
    run = tmp_path / "output" / "my_segm"
    run.mkdir(parents=True)
    cfg = detector_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0)
    (run / "config.yaml").write_text(cfg.dump())
    torch.save({"model": Trainer.build_model(cfg).state_dict()}, run / "model_final.pth")
    shutil.copy(scenes / "annotations" / "instances_val.json", "annotations.json")
    objects = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    found = [{**entry, "score": 0.9} for entry in objects]
    (tmp_path / "results.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_all_examples_run_in_the_order_of_the_page(a_folder_as_on_the_page):
    names = {}
    for number, example in enumerate(examples()):
        exec(compile(example, f"example {number} of docs/python.md", "exec"), names)
    assert len(examples()) >= 10
    assert names["results"]["bbox"]["AP"] == pytest.approx(100)
    assert len(names["in_folder"]) == len(names["texts"]) == 4
