import argparse
import bz2
import gzip
import hashlib
import lzma
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from virtex_det.checkpoint.hashing import file_sha256
from virtex_det.checkpoint.locating import local_path
from virtex_det.checkpoint.reading import read_file
from virtex_det.errors import UserError


class Malicious:
    """Runs a shell command when a careless reader unpickles it."""

    def __init__(self, creates: Path) -> None:
        self.creates = creates

    def __reduce__(self):
        return os.system, (f"touch {self.creates}",)


CONTENT = {
    "model": {"conv1.weight": torch.arange(6.0).reshape(2, 3)},
    "iteration": 3,
    "names": ["a", "b"],
}


def refusal(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        read_file(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def written(tmp_path: Path, content: bytes, name: str = "weights.pth") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_torch_save_are_read(save, mmap, zipped):
    content = read_file(save(CONTENT, _use_new_zipfile_serialization=zipped), mmap=mmap)
    assert torch.equal(content["model"]["conv1.weight"], CONTENT["model"]["conv1.weight"])
    assert content["iteration"] == 3 and content["names"] == ["a", "b"]


def test_safetensors_are_recognised_whatever_their_name(tmp_path):
    save_file(CONTENT["model"], tmp_path / "weights.pth")
    assert torch.equal(
        read_file(tmp_path / "weights.pth")["conv1.weight"], CONTENT["model"]["conv1.weight"]
    )


@pytest.mark.parametrize(
    ("packed", "name"),
    [
        (
            gzip.compress(b"weights", mtime=0),
            "gzip",
        ),  # a time would give each test process tests of other names
        (lzma.compress(b"weights"), "xz"),
        (bz2.compress(b"weights"), "bzip2"),
        (tarfile.TarInfo("weights.pth").tobuf(tarfile.GNU_FORMAT), "tar"),
    ],
)
def test_the_error_for_an_archive_says_to_unpack_it(tmp_path, packed, name):
    assert f"is an archive of {name}, not weights" in refusal(written(tmp_path, packed))


def test_a_missing_path(tmp_path):
    assert "No weights file" in refusal(tmp_path / "absent.pth")


def test_an_unsupported_address():
    with pytest.raises(UserError, match="nowhere:// addresses are not supported"):
        read_file(local_path("nowhere://weights.pth"))


def test_the_error_for_a_folder_names_files_in_it(tmp_path):
    written(tmp_path, b"x", "model_final.pth")
    message = refusal(tmp_path)
    assert "is a folder" in message and "name a file in it, such as model_final.pth." in message


def test_the_error_for_a_folder_without_weights_says_so(tmp_path):
    assert "it has no .pth, .pt or .safetensors file: name a weights file." in refusal(tmp_path)


def test_an_empty_file(tmp_path):
    assert "is empty" in refusal(written(tmp_path, b""))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission(tmp_path):
    path = written(tmp_path, b"x")
    path.chmod(0)
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_torch_file(save, zipped, kept):
    path = Path(save({"weight": torch.rand(1000)}, _use_new_zipfile_serialization=zipped))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert "cut short" in refusal(path)


def test_a_truncated_safetensors_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut short" in refusal(path)


@pytest.mark.parametrize(
    "page",
    [b"<!DOCTYPE html><title>Sign in</title>", b"\xef\xbb\xbf\n<html>", b"<?xml version='1.0'?>"],
)
def test_a_web_page_saved_as_weights(tmp_path, page):
    assert "is a web page" in refusal(written(tmp_path, page))


def test_a_git_lfs_pointer(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    message = refusal(written(tmp_path, pointer))
    assert "Git LFS pointer" in message and "git lfs pull" in message


@pytest.mark.parametrize("text", ["Not Found\n", "MODEL:\n  WEIGHTS: ''\n", " \n", "é" * 600])
def test_a_text_file(tmp_path, text):
    assert "is a text file" in refusal(written(tmp_path, text.encode()))


def test_a_file_of_something_else(tmp_path):
    assert "89 50 4e 47" in refusal(written(tmp_path, b"\x89PNG\r\n\x1a\n\x00\x00"))


def test_a_zip_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("weight.npy", b"")
    assert "is a zip archive without weights" in refusal(tmp_path / "weights.pth")


class Scripted(torch.nn.Module):
    """A module with weights, a number, a buffer, and two tensors that share a storage."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 224
        self.visual = torch.nn.Linear(2, 3).half()
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("part", torch.arange(12.0).reshape(3, 4)[1:, ::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.visual(x)


@pytest.fixture
def archive(tmp_path):
    torch.jit.script(Scripted()).save(tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize("mmap", [True, False])
def test_a_torchscript_archive_gives_its_named_tensors(archive, mmap):
    tensors, expected = read_file(archive, mmap=mmap), torch.jit.load(archive).state_dict()
    assert set(tensors) == set(expected) == {"visual.weight", "visual.bias", "count", "part"}
    assert all(torch.equal(tensors[name], value) for name, value in expected.items())
    assert tensors["visual.weight"].dtype == torch.half


def test_a_torchscript_archive_may_be_deleted_after_it_was_copied(archive):
    tensors = read_file(archive, mmap=False)
    size = archive.stat().st_size
    archive.write_bytes(bytes(size))
    assert tensors["count"] == 7


def test_a_truncated_torchscript_archive(archive):
    archive.write_bytes(archive.read_bytes()[:-200])
    assert "cut short" in refusal(archive)


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_tensors_are_skipped(save, zipped):
    rest = {
        "args": argparse.Namespace(lr=1),
        "best": np.float64(3),
        "dtype": torch.half,
        "list": [Path("x"), 3],
    }
    content = read_file(save(CONTENT | rest, _use_new_zipfile_serialization=zipped))
    assert torch.equal(content["model"]["conv1.weight"], CONTENT["model"]["conv1.weight"])
    assert content["args"] is None and content["list"] == [None, 3] and content["iteration"] == 3


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_gives_its_named_tensors(save, zipped):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3))
    content = read_file(save({"net": module}, _use_new_zipfile_serialization=zipped))
    assert {name: value.tolist() for name, value in content["net"].items()} == {
        name: value.tolist() for name, value in module.state_dict().items()
    }
    assert not any(value.requires_grad for value in content["net"].values())


ARRAYS = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "half": np.ones(3, np.float16),
    "big endian": np.arange(3, dtype=">f4"),
    "integer": np.array(7),
    "bool": np.array([True, False]),
    "strided": np.arange(6)[::2],
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_arrays_gives_tensors(tmp_path, protocol):
    path = written(
        tmp_path, pickle.dumps({"model": ARRAYS, "__author__": "me"}, protocol), "R-50.pkl"
    )
    content = read_file(path)
    assert content["__author__"] == "me"
    assert {name: value.tolist() for name, value in content["model"].items()} == {
        name: value.tolist() for name, value in ARRAYS.items()
    }


def test_arrays_of_numpy_1_and_2_are_the_same(tmp_path):
    pickled = pickle.dumps(ARRAYS["float"], 4)
    for old, new in ((b"numpy._core.multiarray", b"numpy.core.multiarray"),):
        other = pickled.replace(
            len(old).to_bytes(1, "little") + old, len(new).to_bytes(1, "little") + new
        )
    frameless = other[:2] + other[11:]  # without the length that protocol 4 writes before it
    assert read_file(written(tmp_path, frameless)).tolist() == ARRAYS["float"].tolist()


@pytest.mark.parametrize(
    "array", [np.array([{}, Path("x")]), np.array(["text"]), np.zeros(2, [("a", "f4")])]
)
def test_an_array_of_anything_but_numbers_is_skipped(tmp_path, array):
    assert read_file(written(tmp_path, pickle.dumps({"a": array, "b": 3}))) == {"a": None, "b": 3}


def test_arrays_in_a_torch_file_are_tensors_too(save):
    assert read_file(save({"model": {"w": np.ones(2)}}))["model"]["w"].tolist() == [1, 1]


def test_vissl_375_a_torch_file_named_pkl_is_read_by_its_content(save):
    assert read_file(save(CONTENT, "converted.pkl"))["iteration"] == 3


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_pickle(tmp_path, kept):
    pickled = pickle.dumps(ARRAYS, 2)
    assert "cut short" in refusal(
        written(tmp_path, pickled[: int(len(pickled) * kept)], "R-50.pkl")
    )


class Indirect:
    """Reaches a shell through functions of the readers' own libraries."""

    def __init__(self, function, *arguments) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def attacks(created: Path) -> list[object]:
    code = f"open({str(created)!r}, 'w')"
    return [
        Malicious(created),
        Indirect(eval, code),
        Indirect(exec, code),
        Indirect(shutil.copy, __file__, str(created)),
        Indirect(Path.touch, created),
        Indirect(getattr(__import__("builtins"), "open"), str(created), "w"),  # noqa: B009
    ]


@pytest.mark.parametrize("attack", range(6))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_torch_file_creates_nothing(save, tmp_path, zipped, attack):
    created = tmp_path / "created"
    path = save(CONTENT | {"args": attacks(created)[attack]}, _use_new_zipfile_serialization=zipped)
    assert read_file(path)["args"] is None
    assert not created.exists()
    torch.load(path, weights_only=False)
    created.unlink()  # the attack works on a careless reader


@pytest.mark.parametrize("attack", range(6))
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_creates_nothing(tmp_path, protocol, attack):
    created = tmp_path / "created"
    path = written(
        tmp_path, pickle.dumps({"model": attacks(created)[attack]}, protocol), "weights.pkl"
    )
    if protocol < 2:
        assert "is a text file" in refusal(path) or "not a weights file" in refusal(path)
    else:
        assert read_file(path) == {"model": None}
    assert not created.exists()


@pytest.mark.parametrize("attack", range(6))
def test_a_malicious_torchscript_archive_creates_nothing(archive, tmp_path, attack):
    created, hostile = tmp_path / "created", tmp_path / "hostile.pt"
    with zipfile.ZipFile(archive) as good, zipfile.ZipFile(hostile, "w") as bad:
        for member in good.infolist():
            is_content = Path(member.filename).name == "data.pkl"
            pickled = pickle.dumps({"visual": attacks(created)[attack]}, 2)
            bad.writestr(member, pickled if is_content else good.read(member))
    assert read_file(hostile) == {"visual": None}
    assert not created.exists()


def test_an_archives_own_code_is_not_run(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(
        torch.jit, "load", lambda *_, **__: pytest.fail("the archive was loaded with its code")
    )
    monkeypatch.setattr(
        torch._C, "import_ir_module", lambda *_: pytest.fail("the archive's code was imported")
    )
    assert "visual.weight" in read_file(archive)


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one piece
    assert file_sha256(written(tmp_path, content)) == hashlib.sha256(content).hexdigest()
