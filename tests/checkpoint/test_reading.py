import argparse
import hashlib
import os
import pickle
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from virtex_det.checkpoint.reading import file_sha256, local_path, read_file
from virtex_det.errors import UserError


class Malicious:
    """Runs a shell command when a careless reader unpickles it."""

    def __init__(self, creates: Path) -> None:
        self.creates = creates

    def __reduce__(self):
        return os.system, (f"touch {self.creates}",)


CONTENT = {"model": {"conv1.weight": torch.arange(6.0).reshape(2, 3)}, "iteration": 3, "names": ["a", "b"]}


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
def test_what_torch_saved_comes_back(save, mmap, zipped):
    content = read_file(save(CONTENT, _use_new_zipfile_serialization=zipped), mmap=mmap)
    assert torch.equal(content["model"]["conv1.weight"], CONTENT["model"]["conv1.weight"])
    assert content["iteration"] == 3 and content["names"] == ["a", "b"]


def test_safetensors_are_recognised_whatever_their_name(tmp_path):
    save_file(CONTENT["model"], tmp_path / "weights.pth")
    assert torch.equal(read_file(tmp_path / "weights.pth")["conv1.weight"], CONTENT["model"]["conv1.weight"])


def test_a_missing_path(tmp_path):
    assert "No weights file" in refusal(tmp_path / "absent.pth")


def test_an_address_that_nothing_resolves():
    with pytest.raises(UserError, match="nothing here resolves nowhere:// addresses"):
        read_file(local_path("nowhere://weights.pth"))


def test_an_address_that_cannot_be_fetched():
    with pytest.raises(UserError, match="Cannot fetch http://127.0.0.1:9/weights.pth"):
        local_path("http://127.0.0.1:9/weights.pth")


def test_an_address_is_fetched_by_detectron2s_path_handlers(save, tmp_path, monkeypatch):
    save(CONTENT)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        path = local_path(f"http://127.0.0.1:{server.server_port}/weights.pth")
        server.shutdown()
    assert (tmp_path / "cache") in path.parents
    assert read_file(path)["iteration"] == 3


def test_a_folder_says_which_files_are_in_it(tmp_path):
    written(tmp_path, b"x", "model_final.pth")
    message = refusal(tmp_path)
    assert "is a folder" in message and "model_final.pth" in message


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
    "page", [b"<!DOCTYPE html><title>Sign in</title>", b"\xef\xbb\xbf\n<html>", b"<?xml version='1.0'?>"]
)
def test_a_web_page_saved_as_weights(tmp_path, page):
    assert "is a web page" in refusal(written(tmp_path, page))


def test_a_git_lfs_pointer(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    message = refusal(written(tmp_path, pointer))
    assert "Git-LFS pointer" in message and "git lfs pull" in message


@pytest.mark.parametrize("text", ["Not Found\n", "MODEL:\n  WEIGHTS: ''\n", " \n", "é" * 600])
def test_a_text_file(tmp_path, text):
    assert "is a text file" in refusal(written(tmp_path, text.encode()))


def test_a_file_of_something_else(tmp_path):
    assert "89 50 4e 47" in refusal(written(tmp_path, b"\x89PNG\r\n\x1a\n\x00\x00"))


def test_a_zip_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("weight.npy", b"")
    assert "is a zip archive but no weights" in refusal(tmp_path / "weights.pth")


def test_a_torchscript_archive(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "model.pt")
    assert "is a TorchScript archive" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_a_namespace_needs_code(save, zipped):
    path = save(CONTENT | {"args": argparse.Namespace(lr=1)}, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "argparse.Namespace" in message and "refused" in message


def test_a_pickled_module_needs_code(save):
    assert "torch.nn.modules.linear.Linear" in refusal(save(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_torch_file_creates_nothing(save, tmp_path, zipped):
    created = tmp_path / "created"
    refusal(save({"model": Malicious(created)}, _use_new_zipfile_serialization=zipped))
    assert not created.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_creates_nothing(tmp_path, protocol):
    created = tmp_path / "created"
    refusal(written(tmp_path, pickle.dumps({"model": Malicious(created)}, protocol), "weights.pkl"))
    assert not created.exists()


def test_a_plain_pickle_is_named_as_such(tmp_path):
    assert "plain Python pickle" in refusal(written(tmp_path, pickle.dumps({"model": {}}), "R-50.pkl"))


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 5000  # more than one piece
    assert file_sha256(written(tmp_path, content)) == hashlib.sha256(content).hexdigest()
