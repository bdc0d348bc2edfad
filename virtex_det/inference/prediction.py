"""Detectron2's DefaultPredictor with weights that must fill the whole model."""

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine import DefaultPredictor

from virtex_det.checkpoint import follow_weights
from virtex_det.data.classes import class_names, model_classes
from virtex_det.data.mappers.detection import build_augmentations
from virtex_det.engine.evaluation import load_trained
from virtex_det.engine.preflight.model import classes_of
from virtex_det.errors import UserError

logger = logging.getLogger(__name__)


class Predictor(DefaultPredictor):
    """A DefaultPredictor whose weights fill the whole model, including the heads.

    DefaultPredictor itself loads the tensors that fit and only logs the others: with a file without
    heads it predicts with random heads. Otherwise it is the same: the input is (H, W, 3) uint8 in
    BGR order, the output a dict.

    Attributes:
        report: the LoadReport of the weights.
        classes: the names of the classes by number, from training; if the file has none, those of
            the first dataset in DATASETS.TEST; empty if that is unknown, too.
        metadata: for Detectron2's Visualizer, with these names.

    A Detector has one as ``detector.predictor``.

    Example:
        >>> predictor = Detector("output/my_segm").predictor
        >>> predictor(read_picture("photo.jpg", predictor.cfg))["instances"]
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: config of a detector; MODEL.WEIGHTS names its trained weights.

        Raises:
            UserError: there are no weights, they leave a part of the model at random init, or the
                number of classes differs from the number of names.
        """
        if not cfg.MODEL.WEIGHTS:
            raise UserError(
                "MODEL.WEIGHTS is empty: prediction needs a trained model. Name a run's "
                "model_final.pth."
            )
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(
                f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}, but prediction takes RGB and BGR models "
                "only."
            )
        self.cfg = follow_weights(cfg).clone()
        self.model, self.report, _ = load_trained(self.cfg, self.cfg.MODEL.WEIGHTS)
        self.model.eval()
        self.metadata = _metadata(self.cfg, classes_of(self.cfg.MODEL.WEIGHTS))
        self.classes = tuple(self.metadata.get("thing_classes", ()))
        _check_number(self.cfg, self.classes)
        [self.aug] = build_augmentations(self.cfg, is_train=False)
        self.input_format = self.cfg.INPUT.FORMAT


def _metadata(cfg: CfgNode, trained: Sequence[str]) -> Metadata:
    """Return the first test dataset's metadata, or the run's own classes if they differ."""
    name = next(iter(cfg.DATASETS.TEST), "")
    known = class_names(cfg, name) if name else ()
    if trained and known and known != tuple(trained):
        logger.warning(
            "%s has other classes than the model's training data; the model's class names are used",
            name,
        )
    if name and (not trained or known == tuple(trained)):
        return MetadataCatalog.get(name)
    return Metadata(
        name="classes of the run", **({"thing_classes": list(trained)} if trained else {})
    )


def _check_number(cfg: CfgNode, names: Sequence[str]) -> None:
    classes = model_classes(cfg)
    if names and classes and classes.key and len(names) != classes.number:
        raise UserError(
            f"{cfg.MODEL.WEIGHTS} is from a model with {len(names)} classes "
            f"({', '.join(names):.200}), but {classes.key} is {classes.number}.\n"
            "Load the config of the weights' own run."
        )
