"""Which detections are kept: by their score, by their class, and how many."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode

from virtex_det.config import override
from virtex_det.config.rules import LARGEST, Rule, number, whole
from virtex_det.errors import UserError
from virtex_det.escaping import visible
from virtex_det.inference.arguments import check_argument
from virtex_det.inference.image_detections import ImageDetections
from virtex_det.yaml_files import shortened

_SCORE = Rule("a score from 0 to 1, such as 0.5", number(0, 1).holds)
_COUNT = Rule(f"at least 1 detection, at most {LARGEST}", whole(1).holds)
_SCORE_KEYS = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "RetinaNet": "MODEL.RETINANET.SCORE_THRESH_TEST",
}


class Selection(NamedTuple):
    """What is kept of the detections in a picture.

    Attributes:
        threshold: least score; None: the model's own.
        thresholds: least score of single classes, by name.
        classes: names of the classes that are kept; empty: all.
        maximum: how many are kept, the best; None: as many as the model gives.
    """

    threshold: float | None = None
    thresholds: Mapping[str, float] = {}
    classes: Sequence[str] = ()
    maximum: int | None = None

    def check(self) -> None:
        """Refuse scores that are not from 0 to 1, a maximum below 1, and names that are not text.

        Raises:
            UserError: there is one.
        """
        by_name = isinstance(self.thresholds, Mapping)
        if not by_name or not all(isinstance(name, str) for name in self.thresholds):
            raise UserError(
                f"thresholds is {shortened(self.thresholds)}; expected scores by class, such as "
                '{"person": 0.7}.'
            )
        is_list = isinstance(self.classes, Collection) and not isinstance(self.classes, str)
        if not is_list or not all(isinstance(each, str) for each in self.classes):
            raise UserError(
                f"classes is {shortened(self.classes)}; expected a list of names, such as "
                '["person"].'
            )
        for name, score in {"": self.threshold, **self.thresholds}.items():
            if score is not None or name:
                of = f" of the class {visible(name, '')}" if name else ""
                check_argument(f"The threshold{of}", score, _SCORE)
        if self.maximum is not None:
            check_argument("The maximum", self.maximum, _COUNT)

    def check_names(self, known: Sequence[str]) -> None:
        """Refuse the name of a class that the detector does not have.

        Args:
            known: its classes.

        Raises:
            UserError: there is one; the message has the nearest names.
        """
        for name in (*self.classes, *self.thresholds):
            if name not in known:
                raise UserError(_unknown(name, known))

    def reaching(self, cfg: CfgNode) -> CfgNode:
        """Return the config with the model's own limits moved to those asked for beyond them."""
        keys: dict[str, float] = {}
        asked = [self.threshold, *self.thresholds.values()]
        least = min((score for score in asked if score is not None), default=None)
        for key in _SCORE_KEYS.values():
            if least is not None and least < _value(cfg, key):
                keys[key] = least
        if self.maximum is not None and self.maximum > cfg.TEST.DETECTIONS_PER_IMAGE:
            keys["TEST.DETECTIONS_PER_IMAGE"] = self.maximum
        return override(cfg, keys)

    def with_own(self, cfg: CfgNode) -> "Selection":
        """Return it with the model's own least score where none is asked for.

        Args:
            cfg: config of the model before ``reaching``.
        """
        if self.threshold is not None or not self.thresholds:
            return self
        key = _SCORE_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
        return self._replace(threshold=_value(cfg, key) if key else 0.0)

    def of(self, found: ImageDetections, otherwise: float = 0.0) -> ImageDetections:
        """Return what is kept of the detections in a picture.

        Args:
            found: the detections.
            otherwise: least score of classes for which none is asked.
        """
        if self == Selection() and not otherwise:
            return found
        names = found.names
        default = otherwise if self.threshold is None else self.threshold
        least = np.array([self.thresholds.get(name, default) for name in names])
        kept = found.scores >= least
        if self.classes:
            kept &= np.isin(np.array(names), self.classes)
        return found[np.flatnonzero(kept)[: self.maximum]]

    def in_words(self, otherwise: float = 0.0) -> str:
        """Return the least scores for a page; argument as of ``of``."""
        default = otherwise if self.threshold is None else self.threshold
        parts = [f"{default:g}", *(f"{name} {low:g}" for name, low in self.thresholds.items())]
        return ", ".join(parts)


def _value(cfg: CfgNode, key: str) -> float:
    return float(reduce(getattr, key.split("."), cfg))


def _unknown(name: str, known: Sequence[str]) -> str:
    shown = visible(name, "")[:100]
    if not known:
        return (
            f"The detector's classes have no names, so that it has no class {shown!r}.\n"
            "Its run has no classes.json, and its weights name none."
        )
    lower = {each.lower(): each for each in reversed(known)}
    near = difflib.get_close_matches(name.lower()[:100], lower, n=3, cutoff=0.5)
    meant = (
        [f"Did you mean {', '.join(visible(lower[each], '') for each in near)}?"] if near else []
    )
    listed = ", ".join(visible(each, "") for each in known)
    return "\n".join(
        [f"The detector has no class {shown!r}.", *meant, f"Its {len(known)}: {listed:.500}"]
    )
