import pytest

from tests.tiny_bert import make_bert
from virtex_det.cli.clusters import main
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.datasets import load_dataset
from virtex_det.errors import UserError


@pytest.fixture
def build(scenes, tmp_path):
    def run(*arguments):
        where = ("--dataset", "scenes_train_captions", "--output", tmp_path / "clusters.json")
        main(list(map(str, [*where, *arguments])))
        return CaptionClusters.read(tmp_path / "clusters.json")

    return run


def test_without_a_bert_the_words_are_clustered_and_the_file_says_so(build, capsys):
    clusters = build("--size", 3, "--seed", 4)
    assert "by tf-idf" in capsys.readouterr().out
    assert (clusters.size, clusters.seed, clusters.vectors) == (3, 4, "tf-idf")
    for image in load_dataset("scenes_train_captions"):
        assert all(clusters.of(caption) in range(3) for caption in image["captions"])


def test_with_a_bert_its_sentence_vectors_are_clustered(build, tmp_path):
    folder = make_bert(tmp_path / "bert", max_position_embeddings=64)
    assert build("--size", 3, "--bert", folder).vectors == str(folder)


def test_too_many_clusters_are_refused_and_nothing_is_written(build, tmp_path):
    with pytest.raises(UserError, match="--size"):
        build("--size", 10**6)
    assert not list(tmp_path.iterdir())


def test_an_invalid_number_of_clusters_is_refused_before_a_bert_is_read(build, tmp_path):
    with pytest.raises(UserError, match="--size 1 to"):
        build("--size", 0, "--bert", tmp_path / "nothing")


def test_data_without_captions_are_refused(build):
    with pytest.raises(UserError, match="no captions"):
        build("--dataset", "scenes_val")
