"""The hash of a weights file: of the file that was read, taken once a process."""

import hashlib
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.checkpoint.conftest import torchvision_tensors
from virtex_det.checkpoint import (
    TransferCheckpointer,
    follow_weights,
    hashing,
    load_weights,
    reading,
)
from virtex_det.checkpoint.hashing import Digest
from virtex_det.checkpoint.sources import open_for, open_weights
from virtex_det.errors import UserError
from virtex_det.files import open_regular
from virtex_det.model_zoo.catalog import record_of
from virtex_det.model_zoo.download import fetch


@pytest.fixture
def file(save, backbone_tensors) -> str:
    return save(torchvision_tensors(backbone_tensors))


@pytest.fixture
def opened(monkeypatch) -> Counter:
    """How often each file was opened, to be parsed and to be hashed."""
    counts: Counter = Counter()
    for module in (reading, hashing):
        kind = module.__name__.rpartition(".")[2]

        def counting(path, kind=kind):
            counts[kind] += 1
            return open_regular(path)

        monkeypatch.setattr(module, "open_regular", counting)
    return counts


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_load_parses_and_hashes_the_file_once(fpn, file, opened):
    assert load_weights(fpn(), file).sha256 == sha256(file)
    assert opened == {"reading": 1, "hashing": 1}


def test_a_file_hashed_before_a_run_is_not_hashed_again_by_its_load(fpn, file, opened):
    model = fpn()
    before = open_for(tuple(model.state_dict()), file, "backbone").sha256()
    checkpointer = TransferCheckpointer(model)
    checkpointer.load(file, checkpointables=[])
    assert checkpointer.report.sha256 == before == sha256(file)
    assert opened == {"reading": 2, "hashing": 1}


def test_a_file_that_is_ambiguous_without_its_prefix_is_parsed_once(
    fpn, cfg, save, backbone_tensors, opened
):
    tensors = torchvision_tensors(backbone_tensors, "student.") | torchvision_tensors(
        backbone_tensors, "teacher."
    )
    tensors["teacher.conv1.weight"] = tensors["student.conv1.weight"] + 1
    named = cfg.clone()
    named.MODEL.WEIGHTS_PREFIX = "student."
    source = open_for(tuple(fpn().state_dict()), save(tensors), "model", named)
    assert source.weights.location == "student." and opened["reading"] == 1


def test_the_pixels_of_a_file_are_read_once(cfg, file, opened):
    follows = cfg.clone()
    follows.MODEL.WEIGHTS, follows.MODEL.FOLLOW_WEIGHTS = file, True
    follow_weights(follows)
    assert opened == {"reading": 1}


@pytest.mark.parametrize("begin", [True, False])
def test_a_changed_file_is_hashed_again(tmp_path, begin):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    assert Digest([path], begin=begin).wait() == sha256(path)
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert Digest([path], begin=begin).wait() == sha256(path)


def test_a_file_that_changes_while_it_is_hashed_has_no_hash(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    digest = Digest([path])
    path.write_bytes(b"longer")
    with pytest.raises(UserError, match="changed after it was read"):
        digest.wait()
    assert Digest([path]).wait() == sha256(path)


def test_a_deleted_file_has_no_hash(tmp_path, file):
    source = open_weights(file)
    Path(file).unlink()
    with pytest.raises(UserError, match="does not exist"):
        source.sha256()


def test_a_file_hashed_by_the_zoo_is_not_hashed_again(opened, file, tmp_path, monkeypatch):
    monkeypatch.setenv("VIRTEX_DET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VIRTEX_DET_MIRROR", str(tmp_path / "mirror"))
    record = record_of("https://example.org/weights.pth")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / record.file_name).write_bytes(Path(file).read_bytes())
    fetch(record)
    opened.clear()
    assert open_weights(record.name).sha256() == sha256(file)
    assert opened["hashing"] == 0
