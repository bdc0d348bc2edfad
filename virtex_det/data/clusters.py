"""Clusters of captions (ICMLM's TP_Cluster): k-means over their vectors, and their file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from virtex_det.data.datasets.ids import is_name
from virtex_det.errors import UserError
from virtex_det.text_files import read_json
from virtex_det.utils import write_atomically

_SCHEMA = 1
_HOW_TO_BUILD = (
    "Build them with: python tools/build_clusters.py --dataset NAME --size K --output FILE\n"
    "and set INPUT.CAPTION.CLUSTERS to FILE."
)


@dataclass(frozen=True)
class CaptionClusters:
    """The cluster of each caption, and how the clusters were made.

    The key is the caption, not the image: a caption has the same cluster everywhere, so subsets of
    images or captions, and datasets that share image ids, need no file of their own.

    Example:
        >>> clusters = CaptionClusters(2, 0, "tf-idf", {"a dog": 0, "a red bus": 1})
        >>> clusters.of("a red bus")
        1
    """

    size: int  # number of clusters
    seed: int
    vectors: str  # what was clustered: "tf-idf", or the BERT
    clusters: dict[str, int]  # caption -> cluster

    def write(self, path: str | Path) -> None:
        """Write a JSON file, atomically."""
        write_atomically(path, json.dumps({"schema": _SCHEMA, **asdict(self)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> "CaptionClusters":
        """Read a file of ``write``.

        Raises:
            UserError: the file is missing, truncated or of another kind.
        """
        if not Path(path).is_file():
            raise UserError(f"Cannot read the clusters '{path}': No such file.\n{_HOW_TO_BUILD}")
        try:
            return _checked(read_json(path, "clusters of captions"))
        except (UserError, ValueError) as error:
            raise UserError(
                f"{path} is not a complete file of caption clusters: {error}.\n{_HOW_TO_BUILD}"
            ) from error

    def of(self, caption: str) -> int:
        """Return a caption's cluster.

        Raises:
            UserError: the caption has no cluster in this file.
        """
        if caption not in self.clusters:
            raise UserError(
                f"There is no cluster for the caption {caption!r} in this file.\n{_HOW_TO_BUILD}"
            )
        return self.clusters[caption]


def cluster(
    captions: Sequence[str], vectors: Any, size: int, seed: int, made_of: str
) -> CaptionClusters:
    """Cluster captions by k-means over their normalised vectors.

    Args:
        captions: distinct captions.
        vectors: (captions, features), dense or sparse.
        size: number of clusters.
        seed: random seed of k-means.
        made_of: name of the vectors, for the file.

    Raises:
        UserError: as ``check_numbers``, or scikit-learn is not installed.
    """
    check_numbers(len(captions), size, seed)
    try:
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.preprocessing import normalize
    except ModuleNotFoundError as error:
        raise _needs_scikit_learn(error) from error
    kmeans = MiniBatchKMeans(size, random_state=seed, n_init="auto", batch_size=max(1024, size))
    found = kmeans.fit_predict(normalize(vectors)).tolist()
    return CaptionClusters(size, seed, made_of, dict(zip(captions, found, strict=True)))


def check_numbers(captions: int, size: int, seed: int) -> None:
    """Refuse invalid arguments of k-means, before a BERT has encoded all captions.

    Raises:
        UserError: there are no captions, fewer captions than clusters, no clusters, or the seed is
            negative or of more than 32 bits.
    """
    if not captions:
        raise UserError(
            "These data sets have no captions; name data sets with captions, such as "
            "coco_2017_train_captions."
        )
    if not 1 <= size <= captions or not 0 <= seed < 2**32:
        raise UserError(
            f"{captions} different captions cannot make {size} clusters with seed {seed}; use "
            f"--size 1 to {captions}, and --seed 0 to 4294967295."
        )


def tf_idf(captions: Sequence[str]) -> Any:
    """Return sparse tf-idf vectors (captions, words), for use without a BERT.

    Raises:
        UserError: the captions have no words, or scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ModuleNotFoundError as error:
        raise _needs_scikit_learn(error) from error
    try:
        return TfidfVectorizer(strip_accents="unicode").fit_transform(captions)
    except ValueError as error:
        raise UserError(
            f"Cannot make tf-idf vectors of these captions: {error}. Check the captions."
        ) from error


def _needs_scikit_learn(error: ImportError) -> UserError:
    return UserError(
        f"Clusters need scikit-learn, which cannot be imported here: {error}\n"
        'Install the pretraining extra: pip install "virtex_det[pretrain]"'
    )


def _checked(content: Any) -> CaptionClusters:
    """Return the clusters in JSON content; raise ValueError if it is invalid."""
    if not isinstance(content, dict) or content.pop("schema", None) != _SCHEMA:
        raise ValueError(f'it has no "schema": {_SCHEMA}')
    try:
        clusters = CaptionClusters(**content)
        if not all(
            type(number) is int and number >= 0 for number in (clusters.size, clusters.seed)
        ):
            raise TypeError(f"size and seed are {clusters.size!r:.40} and {clusters.seed!r:.40}")
        if not is_name(clusters.vectors):
            raise TypeError(f"vectors are named {clusters.vectors!r:.40}")
        wrong = [
            name
            for name in clusters.clusters.values()
            if type(name) is not int or not 0 <= name < clusters.size
        ]
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    if wrong:
        raise ValueError(
            f"a caption has cluster {wrong[0]!r:.40}; expected 0 to {clusters.size - 1}"
        )
    return clusters
