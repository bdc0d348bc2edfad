"""Odd files, and files with several objects: refused with the reason, or read correctly."""

import io
import pickle

import pytest
import torch
from torch import nn

from tests.checkpoint.conftest import torchvision_tensors
from tests.checkpoint.test_hostile_files import PROTO, array, legacy, model, number, tensor, text
from virtex_det.checkpoint.loading import fill
from virtex_det.checkpoint.networks import Network, find_places
from virtex_det.checkpoint.reading import read_file
from virtex_det.checkpoint.recognition import recognise
from virtex_det.errors import UserError


def saved(content: object, **options: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def refusal_of(path) -> str:
    with pytest.raises(UserError) as caught:
        read_file(path)
    return str(caught.value)


ONE = {"a": torch.ones(2)}
SEVERAL = {
    "pickles": (pickle.dumps({"a": [1]}, 2) * 2, "several objects"),
    "files of an old PyTorch": (
        saved(ONE, _use_new_zipfile_serialization=False) * 2,
        "several objects",
    ),
    "archives": (saved(ONE) * 2, "several archives"),
}


@pytest.mark.parametrize(("content", "found"), SEVERAL.values(), ids=SEVERAL)
def test_several_objects_in_one_file_are_refused(tmp_path, content, found):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert found in refusal_of(path)


BEYOND = 1 << 63
NAMED_BY_A_LIST = (
    b"(" + text("storage") + b"ctorch\nFloatStorage\n]" + text("cpu") + number(1) + b"tQ"
)
IMPOSSIBLE = {
    "an offset beyond all memory": model(tensor(BEYOND, (1,), (1,))),
    "a side beyond all memory": model(tensor(0, (BEYOND,), (1,))),
    "a step beyond all memory": model(tensor(0, (2,), (BEYOND,))),
    "more dimensions than PyTorch has": model(tensor(0, (1,) * 65, (1,) * 65)),
    "a storage named by a list": model(tensor(0, (1,), (1,), stored=NAMED_BY_A_LIST)),
    "an array without bytes": PROTO + b"}" + text("a") + array((1,), data=b"]") + b"s.",
}


@pytest.mark.parametrize("pickled", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_the_error_for_an_impossible_tensor_fits_a_screen(tmp_path, pickled):
    path = tmp_path / "weights.pth"
    path.write_bytes(
        pickled if IMPOSSIBLE["an array without bytes"] is pickled else legacy(pickled)
    )
    assert len(refusal_of(path).splitlines()) < 10


@pytest.mark.parametrize("code", ["f16", "f12", "c32"])
def test_an_array_of_a_dtype_that_torch_lacks_is_not_a_tensor(tmp_path, code):
    path = tmp_path / "weights.pkl"
    path.write_bytes(PROTO + b"}" + text("a") + array((1,), code) + b"s.")
    assert not isinstance(read_file(path)["a"], torch.Tensor)


def test_tensors_without_numbers_say_when_to_save(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": nn.Linear(2, 2, device="meta").state_dict()}, path)
    assert "device meta" in refusal_of(path)


def test_a_very_long_name_is_refused_before_it_is_searched(backbone_tensors):
    content = torchvision_tensors(backbone_tensors) | {"module." * 2000 + "x": torch.ones(1)}
    with pytest.raises(UserError, match=r"a name of 14,001 characters"):
        recognise(content, "weights.pth")


def test_too_many_networks_are_refused(backbone_tensors):
    first = {
        name: backbone_tensors[name]
        for name in backbone_tensors
        if name.startswith(("stem", "res2.0"))
    }
    content = {f"net{number}": torchvision_tensors(first) for number in range(60)}
    with pytest.raises(UserError, match="holds 60 networks"):
        recognise(content, "weights.pth")


@pytest.mark.parametrize("value", [True, 3.5, 1 + 2j])
def test_an_invalid_count_of_averages_is_ignored(backbone_tensors, value):
    content = torchvision_tensors(backbone_tensors, "module.") | {"n_averaged": torch.tensor(value)}
    [place] = find_places(content)
    assert Network(place, "module.").averaged_count is None
    content["n_averaged"] = torch.tensor(3)
    [place] = find_places(content)
    assert Network(place, "module.").averaged_count == 3


@pytest.mark.parametrize("counter", [True, 1 + 2j, float("nan"), 1.5, -1])
def test_an_invalid_counter_is_named(fpn, backbone_tensors, counter):
    name = next(name for name in backbone_tensors if name.endswith("num_batches_tracked"))
    content = torchvision_tensors({**backbone_tensors, name: torch.tensor(counter)})
    with pytest.raises(UserError, match="a count of batches from 0"):
        fill(fpn(), recognise(content, "weights.pth"), "weights.pth")


def test_an_expanded_weight_is_named(fpn, backbone_tensors):
    name = "res3.0.conv1.weight"
    expanded = backbone_tensors[name][:1].expand_as(backbone_tensors[name])
    content = torchvision_tensors({**backbone_tensors, name: expanded})
    with pytest.raises(UserError, match="expanded view"):
        fill(fpn(), recognise(content, "weights.pth"), "weights.pth")


def test_an_incomplete_query_encoder_is_not_silently_replaced_by_the_key_encoder(
    fpn, backbone_tensors
):
    names = list(torchvision_tensors(backbone_tensors))
    query = torchvision_tensors(backbone_tensors, "module.encoder_q.")
    del query[f"module.encoder_q.{names[-1]}"], query["module.encoder_q.layer3.0.conv1.weight"]
    key = torchvision_tensors(
        {name: value + 1 for name, value in backbone_tensors.items()}, "module.encoder_k."
    )
    with pytest.raises(UserError, match=r"encoder_q"):
        fill(fpn(), recognise({"state_dict": query | key}, "moco.pth"), "moco.pth")


def test_the_average_of_an_unclear_network_is_not_chosen(backbone_tensors):
    other = {name: value + 1 for name, value in backbone_tensors.items()}
    average = {name: value + 2 for name, value in backbone_tensors.items()}
    content = {
        "a": torchvision_tensors(backbone_tensors),
        "b": torchvision_tensors(other),
        "model_ema": torchvision_tensors(average),
    }
    with pytest.raises(UserError, match="networks"):
        recognise(content, "weights.pth")
