import json

import numpy as np
import pytest

from virtex_det.data.clusters import CaptionClusters, cluster, tf_idf
from virtex_det.errors import UserError

CAPTIONS = ["a red star", "the red star here", "a blue ring", "the blue ring here"]


@pytest.fixture
def clusters():
    return cluster(CAPTIONS, tf_idf(CAPTIONS), size=2, seed=0, made_of="tf-idf")


def test_captions_of_one_thing_share_a_cluster(clusters):
    red, also_red, blue, also_blue = (clusters.of(caption) for caption in CAPTIONS)
    assert red == also_red != blue == also_blue and {red, blue} == {0, 1}


def test_the_length_of_a_vector_does_not_matter():
    vectors = np.array([[1.0, 0.0], [100.0, 1.0], [0.0, 1.0], [1.0, 100.0]])
    found = cluster(CAPTIONS, vectors, size=2, seed=0, made_of="vectors").clusters
    assert found[CAPTIONS[0]] == found[CAPTIONS[1]] != found[CAPTIONS[2]] == found[CAPTIONS[3]]


def test_a_seed_determines_the_clusters():
    vectors = np.random.default_rng(0).normal(size=(4, 3))
    assert cluster(CAPTIONS, vectors, 3, 5, "v") == cluster(CAPTIONS, vectors, 3, 5, "v")


def test_the_error_for_more_clusters_than_captions_has_the_maximum():
    with pytest.raises(UserError, match="use --size 1 to 4"):
        cluster(CAPTIONS, tf_idf(CAPTIONS), size=5, seed=0, made_of="tf-idf")


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (-1, 0), (2, -1), (2, 2**32)])
def test_numbers_that_k_means_cannot_take_are_refused(size, seed):
    with pytest.raises(
        UserError, match=f"make {size} clusters with seed {seed}; use --size 1 to 4"
    ):
        cluster(CAPTIONS, tf_idf(CAPTIONS), size, seed, "tf-idf")


def test_captions_without_a_word_are_an_error():
    with pytest.raises(UserError, match="Cannot make tf-idf"):
        tf_idf(["!", "?"])


def test_clusters_are_read_back_from_their_file(clusters, tmp_path):
    clusters.write(tmp_path / "clusters.json")
    assert CaptionClusters.read(tmp_path / "clusters.json") == clusters
    assert json.loads((tmp_path / "clusters.json").read_text())["vectors"] == "tf-idf"


def test_a_caption_that_was_not_clustered_is_an_error(clusters):
    with pytest.raises(UserError, match="'a green box'(?s:.*)virtex-det data clusters"):
        clusters.of("a green box")


@pytest.mark.parametrize(
    "change", [{"schema": 2}, {"clusters": {"a": 2}}, {"clusters": [0]}, {"colour": 1}]
)
def test_a_file_of_another_form_is_an_error(clusters, tmp_path, change):
    path = tmp_path / "clusters.json"
    clusters.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="is not a complete file of caption clusters"):
        CaptionClusters.read(path)


def test_a_file_cut_short_or_missing_is_an_error(clusters, tmp_path):
    path = tmp_path / "clusters.json"
    clusters.write(path)
    path.write_text(path.read_text()[:100])
    for name, message in ((path, "not a complete file"), (tmp_path / "other.json", "No such file")):
        with pytest.raises(UserError, match=rf"{message}(?s:.*)virtex-det data clusters"):
            CaptionClusters.read(name)
