import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathManager

from tests.model_zoo.conftest import PAYLOAD
from virtex_det import model_zoo
from virtex_det.config.files import packaged_config
from virtex_det.errors import UserError
from virtex_det.model_zoo import zoo
from virtex_det.model_zoo.catalog import catalog, find

NAME = "bicaptioning_R_50_L1_H2048"


def test_every_record_has_a_config_that_exists():
    assert all(packaged_config(record.config).is_file() for record in catalog())


def test_a_config_has_the_network_and_pixels_of_its_weights():
    cfg = model_zoo.get_config("clip_RN50x4", trained=True)
    assert cfg.MODEL.WEIGHTS == "virtex://clip_RN50x4"
    assert cfg.MODEL.RESNETS.WIDTH_PER_GROUP == 80 and cfg.MODEL.CAPTION_RESNET.STEM == "clip"
    assert cfg.MODEL.PIXEL_MEAN[0] == pytest.approx(255 * 0.48145466, abs=1e-3)


def test_the_config_file_that_goes_with_weights_already_has_their_width_and_depth():
    for record in catalog():
        alone = zoo.get_cfg()
        alone.merge_from_file(zoo.get_config_file(record.name), allow_unsafe=False)
        full = zoo.get_config(record.name)
        if record.architecture in ("R-50", "R-101", "R-50 w2x", "CLIP RN50", "CLIP RN101", "CLIP RN50x4"):
            assert alone.MODEL.CAPTION_RESNET == full.MODEL.CAPTION_RESNET, record.name
            assert alone.MODEL.RESNETS.DEPTH == full.MODEL.RESNETS.DEPTH, record.name
            assert alone.MODEL.RESNETS.WIDTH_PER_GROUP == full.MODEL.RESNETS.WIDTH_PER_GROUP, record.name


def test_untrained_the_config_starts_at_random():
    assert model_zoo.get_config(NAME).MODEL.WEIGHTS == ""


def test_a_virtex_config_name_is_a_name():
    assert Path(model_zoo.get_config_file(f"width_ablations/{NAME}.yaml")).is_file()


def test_the_address_of_weights():
    assert model_zoo.get_checkpoint_url(NAME).startswith("https://www.dropbox.com/s/mbeeso8wyieq8wy/")


def test_weights_without_an_address_have_none_to_give():
    with pytest.raises(UserError, match="by hand"):
        model_zoo.get_checkpoint_url("soco_FPN_400ep")


def test_a_path_with_our_prefix_is_fetched_by_detectron2s_path_manager(server, cache, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_MIRROR", server.url)
    assert PathManager.get_local_path(f"virtex://width_ablations/{NAME}") == str(cache / f"{NAME}.pth")
    with PathManager.open(f"virtex://{NAME}", "rb") as file:
        assert file.read() == PAYLOAD
    assert len(server.requests) == 1


def test_a_path_exists_when_the_zoo_knows_its_name():
    assert PathManager.exists(f"virtex://{NAME}") and PathManager.isfile(f"virtex://{NAME}")
    assert not PathManager.exists("virtex://nothing_like_it")


def test_published_weights_are_not_written():
    with pytest.raises(UserError, match="only be read"):
        PathManager.open(f"virtex://{NAME}", "wb")


def test_a_trained_model_has_the_published_backbone(tmp_path, monkeypatch):
    small = {"MODEL.RESNETS.STEM_OUT_CHANNELS": 8, "MODEL.RESNETS.RES2_OUT_CHANNELS": 8, "MODEL.RESNETS.DEPTH": 18}
    small |= {"MODEL.RESNETS.NORM": "BN", "MODEL.FPN.NORM": "", "MODEL.FPN.OUT_CHANNELS": 8}
    small |= {"MODEL.ROI_BOX_HEAD.FC_DIM": 8, "MODEL.ROI_MASK_HEAD.CONV_DIM": 8}
    monkeypatch.setattr(zoo, "find", lambda name: _with_network(name, small))
    published = zoo.get(NAME, device="cpu")
    backbone = {key: value for key, value in published.state_dict().items() if key.startswith("backbone.")}
    torch.save({"model": published.state_dict()}, tmp_path / f"{NAME}.pth")
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path))
    loaded = zoo.get(NAME, trained=True, device="cpu").state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in backbone.items())


def _with_network(name, network):
    return dataclasses.replace(find(name), network=network)


def test_importing_the_package_registers_the_zoo_without_its_downloader():
    code = "import sys, virtex_det; print('requests' in sys.modules, 'virtex_det.checkpoint' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False", "False"], done.stderr
