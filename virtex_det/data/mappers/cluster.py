"""The mapper of TP_Cluster: an augmented image and the cluster of one caption."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.clusters import CaptionClusters
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.errors import UserError


@MAPPER_REGISTRY.register()
class ClusterMapper(PretrainingMapper):
    """Makes an augmented image, and the clusters of some of its captions as tags (ICMLM)."""

    @configurable
    def __init__(self, is_train: bool, *, clusters: CaptionClusters, **image_options: Any) -> None:
        """Make a mapper from a config, ``ClusterMapper(cfg, is_train)``, or from its parts.

        Args:
            is_train: draw captions and the flip; otherwise take the first caption and do not flip.
            clusters: clusters of all captions.
            image_options: options of ``PretrainingMapper``.
        """
        super().__init__(is_train, **image_options)
        self.clusters = clusters

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Read INPUT.FORMAT and INPUT.CAPTION."""
        clusters = CaptionClusters.read(cfg.INPUT.CAPTION.CLUSTERS)
        return {**super().from_config(cfg, is_train), "clusters": clusters}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            "image" (3, S, S) uint8, "tags" (1,) int64, "image_id", "height", "width"; with several
            captions "tags" are in "by_caption".

        Raises:
            UserError: the image has no caption, or its caption has no cluster.
        """
        captions = dataset_dict.get("captions")
        if not captions:
            raise UserError(
                f"No caption for image {dataset_dict['file_name']}: without one it has no cluster."
            )
        example, _ = self.map_image(dataset_dict)
        chosen = [captions[number] for number in self.choose(len(captions))]
        tags = [{"tags": torch.tensor([self.clusters.of(caption)])} for caption in chosen]
        return self.with_captions(example, tags)
