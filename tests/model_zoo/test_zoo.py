import dataclasses
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathManager

from tests.model_zoo.conftest import PAYLOAD
from virtex_det import load_config, model_zoo
from virtex_det.checkpoint import convert
from virtex_det.config.files import packaged_config
from virtex_det.errors import UserError
from virtex_det.model_zoo import catalog as catalog_module
from virtex_det.model_zoo import zoo
from virtex_det.model_zoo.catalog import catalog

NAME = "bicaptioning_R_50_L1_H2048"


def test_every_record_has_a_config_that_exists():
    assert all(packaged_config(record.config).is_file() for record in catalog())


def test_a_config_has_the_network_and_pixels_of_its_weights():
    cfg = model_zoo.get_config("clip_RN50x4", trained=True)
    assert cfg.MODEL.WEIGHTS == "virtex://clip_RN50x4"
    assert cfg.MODEL.RESNETS.WIDTH_PER_GROUP == 80 and cfg.MODEL.CAPTION_RESNET.STEM == "clip"
    assert cfg.MODEL.PIXEL_MEAN[0] == pytest.approx(255 * 0.48145466, abs=1e-3)


def test_the_config_file_of_weights_has_their_width_and_depth():
    for record in catalog():
        alone = load_config(zoo.get_config_file(record.name))
        full = zoo.get_config(record.name)
        if record.architecture in (
            "R-50",
            "R-101",
            "R-50 w2x",
            "CLIP RN50",
            "CLIP RN101",
            "CLIP RN50x4",
        ):
            assert alone.MODEL.CAPTION_RESNET == full.MODEL.CAPTION_RESNET, record.name
            assert alone.MODEL.RESNETS.DEPTH == full.MODEL.RESNETS.DEPTH, record.name
            assert alone.MODEL.RESNETS.WIDTH_PER_GROUP == full.MODEL.RESNETS.WIDTH_PER_GROUP, (
                record.name
            )


def test_the_untrained_config_starts_from_random_init():
    assert model_zoo.get_config(NAME).MODEL.WEIGHTS == ""


def test_a_virtex_config_name_is_a_name():
    assert Path(model_zoo.get_config_file(f"width_ablations/{NAME}.yaml")).is_file()


def test_the_address_of_weights():
    assert model_zoo.get_checkpoint_url(NAME).startswith(
        "https://www.dropbox.com/s/mbeeso8wyieq8wy/"
    )


def test_weights_without_an_address_are_an_error():
    with pytest.raises(UserError, match="by hand"):
        model_zoo.get_checkpoint_url("soco_FPN_400ep")


def test_detectron2s_path_manager_downloads_a_path_with_the_prefix(server, cache, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_MIRROR", server.url)
    assert PathManager.get_local_path(f"virtex://width_ablations/{NAME}") == str(
        cache / f"{NAME}.pth"
    )
    with PathManager.open(f"virtex://{NAME}", "rb") as file:
        assert file.read() == PAYLOAD
    assert len(server.requests) == 1


def test_a_path_exists_if_the_zoo_has_its_name():
    assert PathManager.exists(f"virtex://{NAME}") and PathManager.isfile(f"virtex://{NAME}")
    assert not PathManager.exists("virtex://nothing_like_it")


def test_published_weights_cannot_be_written():
    with pytest.raises(UserError, match="only be read"):
        PathManager.open(f"virtex://{NAME}", "wb")


SMALL = {
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 8,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.OUT_CHANNELS": 8,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 8,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.TEXTUAL.VOCAB_SIZE": 240,
    "MODEL.TEXTUAL.HIDDEN_SIZE": 16,
    "MODEL.TEXTUAL.ATTENTION_HEADS": 2,
    "MODEL.TEXTUAL.FEEDFORWARD_SIZE": 32,
}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The tensors of a tiny model, which is on a mirror as NAME in VirTex's layout."""
    monkeypatch.setattr(catalog_module, "catalog", lambda: tuple(map(_tiny, catalog())))
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    model = zoo.get(NAME, trained=False, device="cpu")
    (tmp_path / "mirror").mkdir()
    torch.save({"model": model.state_dict()}, tmp_path / "ours.pth")
    convert(str(tmp_path / "ours.pth"), tmp_path / "mirror" / f"{NAME}.pth", to="virtex")
    return model.state_dict()


def _tiny(record):
    return dataclasses.replace(record, network=SMALL) if record.name == NAME else record


def of_stem(tensors):
    return {
        name.rpartition("stem.")[2]: value for name, value in tensors.items() if "stem." in name
    }


def test_by_default_the_whole_model_of_the_file_is_returned(published, caplog):
    model = zoo.get(NAME, device="cpu")
    assert type(model).__name__ == "BicaptioningModel" and model.training
    loaded = model.state_dict()
    assert loaded.keys() == published.keys()
    assert all(torch.equal(loaded[name], value) for name, value in published.items())
    assert not [record for record in caplog.records if "random" in record.getMessage()]


def test_a_file_that_does_not_fill_its_model_is_refused(published, tmp_path):
    file = tmp_path / "mirror" / f"{NAME}.pth"
    content = torch.load(file, weights_only=True)
    kept = {name: value for name, value in content["model"].items() if "transformer" not in name}
    torch.save({"model": kept}, file)
    with pytest.raises(UserError, match="does not fill the whole model"):
        zoo.get(NAME, device="cpu")
    assert zoo.get(NAME, device="cpu", task="backbone").report.loaded


def test_a_detector_has_the_published_backbone_and_warns_of_random_heads(published, caplog):
    model = zoo.get(NAME, device="cpu", task="detection")
    assert type(model).__name__ == "GeneralizedRCNN"
    ours, theirs = of_stem(model.state_dict()), of_stem(published)
    assert len(ours) == 6 and all(torch.equal(ours[name], value) for name, value in theirs.items())
    [warning] = [
        record.getMessage() for record in caplog.records if "random" in record.getMessage()
    ]
    assert f"{NAME} fills only the backbone" in warning and "roi_heads" in warning


def test_a_backbone_is_that_of_the_file(published):
    backbone = zoo.get(NAME, device="cpu", task="backbone")
    ours, theirs = of_stem(backbone.state_dict()), of_stem(published)
    assert len(ours) == 6 and all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert backbone.report.format == "virtex"


@pytest.mark.parametrize("task", ["", "pretraining", "detection", "backbone"])
def test_random_init_gives_a_warning(task, published, caplog):
    zoo.get(NAME, trained=False, device="cpu", task=task)
    assert f"{NAME}: trained is False, so all weights are at random init" in caplog.text


def test_a_file_with_only_a_backbone_has_no_pretraining_model():
    with pytest.raises(
        UserError,
        match=r"clip_RN50 .* has no pretraining model here.*load_backbone\('virtex://clip_RN50'\)",
    ):
        zoo.get("clip_RN50", task="pretraining")
    with pytest.raises(
        UserError, match="no config for the task 'captions'; expected 'detection' or 'pretraining'"
    ):
        zoo.get_config(NAME, task="captions")


def test_every_pretraining_config_exists_and_is_of_the_published_network():
    named = [record for record in catalog() if record.pretraining_config]
    assert len(named) == 13 and all(record.format == "virtex" for record in named)
    for record in named:
        cfg = zoo.get_config(record.name, task="pretraining")
        as_given = load_config(zoo.get_config_file(record.name, "pretraining"))
        assert cfg.MODEL.RESNETS == as_given.MODEL.RESNETS, record.name
        assert (
            record.pretraining_config.removeprefix("pretrain/").removesuffix(".yaml")
            in record.aliases
        )
