"""Checks that the traces of narratives show LocTex where words are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from virtex_det.config.mappers import mapper_name
from virtex_det.data.mappers.narrative import NarrativeMapper, utterances_of
from virtex_det.errors import UserError


def check_traces(cfg: CfgNode, dicts: Sequence[Mapping[str, Any]]) -> None:
    """Check that a LocTexModel with a localization loss gets a word with a point in the image.

    The check ends at the first such word. Single narratives without one are valid: the loss skips
    them.

    Args:
        cfg: of the model.
        dicts: the images to train on.

    Raises:
        UserError: no narrative has such a word, or an image has no trace.
    """
    is_localized = cfg.MODEL.META_ARCHITECTURE == "LocTexModel" and bool(
        cfg.MODEL.LOCTEX.LOCALIZATION_WEIGHT
    )
    if not is_localized or mapper_name(cfg) != "NarrativeMapper" or not dicts:
        return
    mapper = NarrativeMapper(cfg, is_train=False)
    points = []
    for entry in dicts:
        for caption, trace in zip(*mapper.narratives(entry), strict=True):
            of_trace = torch.from_numpy(trace["points"])
            _, localized = mapper.align(utterances_of(caption, trace), of_trace)
            if len(localized):
                return
            points.append(trace["points"])
    raise UserError(_no_localized_word(cfg, np.concatenate(points)))


def _no_localized_word(cfg: CfgNode, points: np.ndarray) -> str:
    """Return the reason why no word has a point, and what to do.

    Args:
        cfg: of the model.
        points: of all narratives. # shape: (points, 3)
    """
    names = ", ".join(cfg.DATASETS.TRAIN)
    captions_alone = "set MODEL.LOCTEX.LOCALIZATION_WEIGHT 0 to learn from captions alone."
    if not len(points):
        return (
            f"LocTexModel learns where words are from traces, and no trace of {names} has a "
            f"point.\nTrain on narratives with traces, or {captions_alone}"
        )
    in_image = ((points[:, :2] >= 0) & (points[:, :2] < 1)).all(axis=1)
    if not in_image.any():
        x, y, _ = points[0].tolist()
        return (
            f"All {len(points)} trace points of {names} lie outside their images: the first one is "
            f"at x {x:g}, y {y:g}.\n"
            "Expected x and y from 0 to 1, as fractions of the image's width and height. Divide "
            f"pixels by these; or {captions_alone}"
        )
    if not cfg.INPUT.CAPTION.CONCEPTS:
        return (
            f"No trace point of {names} belongs to a word: none lies between the start and the "
            "end of one.\n"
            "Expected times in seconds since the start of the recording, both of words and of "
            f"points. Correct them; or {captions_alone}"
        )
    return (
        f"No trace point of {names} belongs to a word of the concept set INPUT.CAPTION.CONCEPTS "
        f"{cfg.INPUT.CAPTION.CONCEPTS}.\n"
        "Build the set from these captions with tools/build_concepts.py; or set it to '' to "
        "localize all words."
    )
