"""Every published layout, loaded as train_net loads it, computes what the original computes."""

import pytest
import torch

from tests.checkpoint.layouts import LAYOUTS
from tests.checkpoint.originals import (
    STAGES,
    config,
    detector,
    detector_features,
    features,
    network,
)
from virtex_det.checkpoint import FORMATS, TransferCheckpointer
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.checkpoint.recognition import recognise
from virtex_det.errors import UserError

SUFFIXES = {
    "save": ".pth",
    "write_safetensors": ".safetensors",
    "write_torchscript": ".pt",
    "write_legacy": ".pth.tar",
}


@pytest.fixture(scope="module", params=LAYOUTS)
def published(request, tmp_path_factory):
    """Each layout in turn, and its file."""
    layout = LAYOUTS[request.param]
    path = (
        tmp_path_factory.mktemp("published")
        / f"weights{SUFFIXES.get(layout.write.__name__, '.pkl')}"
    )
    layout.write(layout.content(network(layout.original)), path)
    yield layout, str(path)
    path.unlink()


@pytest.mark.parametrize(("kind", "norm"), [("FPN", "BN"), ("C4", "FrozenBN")])
def test_a_layout_is_loaded_whole_and_computes_what_the_original_computes(
    published, tmp_path, kind, norm
):
    layout, path = published
    model = detector(layout.original, kind, norm)
    checkpointer = TransferCheckpointer(
        model, str(tmp_path), cfg=config(layout.original, kind, norm)
    )
    checkpointer.resume_or_load(path, resume=False)
    report = checkpointer.report
    assert report.format == layout.family
    assert not report.missing and not report.partial
    backbone = {
        name for name in model.state_dict() if from_detectron2(name) and "num_batches" not in name
    }
    assert backbone <= set(report.loaded)
    computed, expected = detector_features(model), features(layout.original)
    for stage in STAGES:
        difference = (computed[stage] - expected[stage]).abs().max() / expected[stage].abs().max()
        assert difference < 1e-4, stage


def test_every_family_has_a_layout_and_its_own_name():
    assert {layout.family for layout in LAYOUTS.values()} == {entry.name for entry in FORMATS}
    assert len({entry.name for entry in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize(
    "name", [name for name, layout in LAYOUTS.items() if layout.write is torch.save]
)
def test_a_layout_that_fits_a_second_family_gives_the_same_there(name, monkeypatch):
    content = LAYOUTS[name].content(network(LAYOUTS[name].original))
    first = recognise(content, name)
    others = tuple(entry for entry in FORMATS if entry.name != first.format.name)
    monkeypatch.setattr("virtex_det.checkpoint.families.FORMATS", others)
    try:
        second = recognise(content, name)
    except UserError:
        return
    assert first.format.pixels[:1] == second.format.pixels[:1]
    for fact in ("stride_in_1x1", "stem", "downsample"):
        assert getattr(first.format, fact) == getattr(second.format, fact), second.format.name
    assert set(first.backbone) == set(second.backbone)


def wrapped(content, wrapper: str):
    """The same content, with a wrapper before every tensor's name."""
    if not isinstance(content, dict):
        return content
    return {
        wrapper + str(key) if isinstance(value, torch.Tensor) else key: wrapped(value, wrapper)
        for key, value in content.items()
    }


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.module.", "model.", "net._orig_mod."])
@pytest.mark.parametrize(
    "name", [name for name, layout in LAYOUTS.items() if layout.write is torch.save]
)
def test_a_layout_under_a_wrapper_is_recognised_as_the_same(name, wrapper):
    content = LAYOUTS[name].content(network(LAYOUTS[name].original))
    plain, behind = recognise(content, name), recognise(wrapped(content, wrapper), name)
    assert set(plain.backbone) == set(behind.backbone) and set(plain.rest) == set(behind.rest)
    assert plain.format == behind.format
    for canonical, source in plain.backbone.items():
        assert behind.tensors[behind.backbone[canonical]] is plain.tensors[source]
