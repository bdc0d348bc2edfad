import pytest
import torch

from virtex_det import get_cfg
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.mappers.cluster import ClusterMapper
from virtex_det.errors import UserError


@pytest.fixture
def cfg(tmp_path, example):
    clusters = {caption: index + 3 for index, caption in enumerate(example["captions"])}
    CaptionClusters(9, 0, "tf-idf", clusters).write(tmp_path / "clusters.json")
    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.CAPTION.CROP_SIZE = 16
    cfg.INPUT.CAPTION.CLUSTERS = str(tmp_path / "clusters.json")
    return cfg


def test_an_example_has_the_cluster_of_one_caption(cfg, example):
    mapper = ClusterMapper(cfg, True)
    mapped = [mapper(example) for _ in range(20)]
    assert {tuple(one["tags"].tolist()) for one in mapped} == {(3,), (4,)}
    assert mapped[0]["tags"].dtype == torch.int64 and mapped[0]["image"].shape == (3, 16, 16)


def test_evaluation_takes_the_first_caption(cfg, example):
    assert {ClusterMapper(cfg, False)(example)["tags"].item() for _ in range(5)} == {3}


@pytest.mark.parametrize(
    "captions, message", [([], r"No caption.*photo\.jpg"), (["a new one"], "no cluster.*a new one")]
)
def test_an_image_without_a_cluster_is_an_error(cfg, example, captions, message):
    with pytest.raises(UserError, match=message):
        ClusterMapper(cfg, True)({**example, "captions": captions})
