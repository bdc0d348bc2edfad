import pytest
import torch
from detectron2.engine import launch
from torch import nn

from virtex_det.engine.hooks import pool_bn_statistics


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
    launch(_pool, 2, dist_url="auto", args=(str(tmp_path),))
    for rank in range(2):
        mean, variance = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        torch.testing.assert_close(mean, images.mean().view(1))
        torch.testing.assert_close(variance, images.var(correction=0).view(1))


def test_one_process_keeps_its_statistics():
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(3.0)
    pool_bn_statistics(norm)
    assert norm.running_mean.item() == 3.0
