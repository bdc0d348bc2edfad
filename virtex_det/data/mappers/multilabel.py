"""The mapper of multi-label classification."""

from typing import Any

import torch

from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.mappers.pretraining import PretrainingMapper
from virtex_det.errors import UserError


@MAPPER_REGISTRY.register()
class MultilabelMapper(PretrainingMapper):
    """Makes an augmented image and the classes of its objects, including crowds as in VirTex."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Turn a dataset dict into a pretraining example.

        Returns:
            "image" (3, S, S) uint8; "labels" (n,) int64, the sorted, distinct classes, counted from
            1 (0 is the published model's background); "image_id", "height", "width".

        Raises:
            UserError: the image cannot be read, or has no annotations.
        """
        if "annotations" not in dataset_dict:
            raise UserError(
                f"No annotations for image {dataset_dict['file_name']}; multi-label "
                "classification needs those of objects.\n"
                "Name a dataset with instances, such as coco_2017_train, in DATASETS.TRAIN and "
                "TEST."
            )
        example, _ = self.map_image(dataset_dict)
        labels = sorted(
            {1 + annotation["category_id"] for annotation in dataset_dict["annotations"]}
        )
        return {**example, "labels": torch.tensor(labels, dtype=torch.int64)}
