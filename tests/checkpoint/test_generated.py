"""Every generated weights file is loaded whole from one network or refused, never half loaded."""

import pytest
import torch

from tests.checkpoint.conftest import random_tensors
from tests.checkpoint.generated import cases
from virtex_det.checkpoint.loading import fill
from virtex_det.checkpoint.names import from_detectron2
from virtex_det.checkpoint.recognition import recognise
from virtex_det.checkpoint.sources import open_weights
from virtex_det.errors import UserError

CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def networks(backbone_tensors):
    """Two networks of one shape; the values of both fit into half precision."""
    generator = torch.Generator().manual_seed(1)
    halves = {
        n: v.bfloat16().to(v.dtype) if v.is_floating_point() else v
        for n, v in backbone_tensors.items()
    }
    shift = {n: torch.rand(v.shape, generator=generator) for n, v in halves.items()}
    return halves, {n: v + shift[n] + 1 if v.is_floating_point() else v for n, v in halves.items()}


@pytest.fixture(scope="module")
def model(cfg):
    from detectron2.modeling import build_model

    return build_model(cfg)


def test_there_are_at_least_300_files_each_with_its_own_name():
    assert len(CASES) == len(cases()) >= 300


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_loaded_whole_from_one_network_or_refused_by_name(
    name, networks, model, tmp_path
):
    case, (a, b) = CASES[name], networks
    initial = random_tensors(model.state_dict())
    model.load_state_dict(initial)
    content = case.make(a, b)
    names = tuple(initial)
    try:
        if case.write:
            path = str(case.write(content, tmp_path))
            weights = open_weights(path, like=names).weights
        else:
            path = "weights.pth"
            weights = recognise(content, path, case.format, prefix=case.prefix, like=names)
        report = fill(model, weights, path)
    except UserError as error:
        assert case.refused is not None, str(error)
        assert [words for words in case.refused if words not in str(error)] == [], str(error)
        assert len(str(error).splitlines()) < 22
        assert all(torch.equal(value, initial[key]) for key, value in model.state_dict().items())
        return
    assert case.refused is None, report.table()
    loaded = {
        layer: value for key, value in model.state_dict().items() if (layer := from_detectron2(key))
    }
    kept = [layer for layer in loaded if not layer.endswith("num_batches_tracked")]
    assert [layer for layer in kept if not torch.equal(loaded[layer], a[layer])] == []
    assert not report.missing and not report.partial
    assert case.report in report.table()
