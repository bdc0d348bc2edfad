import json
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.processes import launch_processes
from virtex_det.engine.hooks import BrokenImages, pool_bn_statistics, share_buffers


def _pool(folder: str) -> None:
    rank = torch.distributed.get_rank()
    norm = nn.BatchNorm2d(1)
    images = torch.load(f"{folder}/images.pth", weights_only=True)[rank]
    norm.running_mean.fill_(images.mean())
    norm.running_var.fill_(images.var(correction=0))
    pool_bn_statistics(norm)
    torch.save([norm.running_mean, norm.running_var], f"{folder}/{rank}.pth")


@pytest.mark.slow
def test_pooled_statistics_are_those_of_all_images_together(tmp_path):
    images = torch.randn(2, 50) * torch.tensor([[1.0], [3.0]]) + torch.tensor([[0.0], [5.0]])
    torch.save(images, tmp_path / "images.pth")
    launch_processes(_pool, str(tmp_path), processes=2)
    for rank in range(2):
        mean, variance = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(mean, images.mean().view(1))
        torch.testing.assert_close(variance, images.var(correction=0).view(1))


def _share(folder: str) -> None:
    rank = torch.distributed.get_rank()
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(rank + 3)
    share_buffers(norm)
    torch.save(norm.running_mean, f"{folder}/{rank}.pth")


@pytest.mark.slow
def test_all_ranks_evaluate_the_model_that_is_saved(tmp_path):
    launch_processes(_share, str(tmp_path), processes=2)
    assert [
        torch.load(tmp_path / f"{rank}.pth", weights_only=True).item() for rank in range(2)
    ] == [3, 3]


def test_one_process_keeps_its_statistics():
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(3.0)
    pool_bn_statistics(norm)
    assert norm.running_mean.item() == 3.0


def after_training(folder, report, finished=True, start=0):
    hook = BrokenImages(folder)
    loader = SimpleNamespace(report=lambda: report)
    hook.trainer = SimpleNamespace(
        data_loader=loader, iter=5 if finished else 3, max_iter=5, start_iter=start
    )
    hook.after_train()


def test_what_was_left_out_is_reported_at_the_end(caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        after_training(tmp_path, {"image cannot be read": ["a.jpg", "b.jpg"]})
    assert "2 x image cannot be read: a.jpg, b.jpg" in caplog.text


def test_nothing_left_out_is_not_reported(caplog, tmp_path):
    after_training(tmp_path, {})
    assert not caplog.text and not list(tmp_path.iterdir())


def test_a_run_keeps_what_all_its_parts_left_out(tmp_path):
    after_training(tmp_path, {"of another run": ["x.jpg"]})
    after_training(tmp_path, {"image cannot be read": ["\udc80.jpg", "b.jpg"]})
    after_training(
        tmp_path, {"image cannot be read": ["a.jpg"], "image is too large": ["c.jpg"]}, start=3
    )
    after_training(tmp_path, {}, start=4)
    kept = json.loads((tmp_path / "left_out.json").read_text())
    assert kept == {
        "image cannot be read": ["a.jpg", "b.jpg", "\udc80.jpg"],
        "image is too large": ["c.jpg"],
    }


def test_a_run_that_begins_anew_does_not_keep_what_an_earlier_start_left_out(tmp_path):
    after_training(tmp_path, {"of another start": ["x.jpg"]})
    after_training(tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 3}', "\x00"])
def test_a_damaged_file_of_what_was_left_out_ends_no_training(content, tmp_path, caplog):
    (tmp_path / "left_out.json").write_text(content)
    after_training(tmp_path, {"image cannot be read": ["a.jpg"]}, start=3)
    assert json.loads((tmp_path / "left_out.json").read_text()) == {
        "image cannot be read": ["a.jpg"]
    }
    assert "is damaged" in caplog.text


def test_a_process_that_stopped_early_reports_without_waiting_for_the_others(
    monkeypatch, caplog, tmp_path
):
    monkeypatch.setattr("detectron2.utils.comm.gather", None)
    after_training(tmp_path, {"image cannot be read": ["a.jpg"]}, finished=False)
    assert "a.jpg" in caplog.text


def _report(folder: str) -> None:
    rank = torch.distributed.get_rank()
    records = []
    logging.getLogger("virtex_det.engine.hooks").handlers = [
        SimpleNamespace(level=0, handle=records.append)
    ]
    after_training(folder, {"image cannot be read": ["both.jpg", f"{rank}.jpg"]})
    torch.save([record.getMessage() for record in records], f"{folder}/{rank}.pth")


@pytest.mark.slow
def test_the_main_process_reports_for_all(tmp_path):
    launch_processes(_report, str(tmp_path), processes=2)
    (summary,), nothing = (
        torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2)
    )
    assert "3 x image cannot be read: 0.jpg, 1.jpg, both.jpg" in summary and nothing == []
