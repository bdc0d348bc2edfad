"""Prediction on single images, as Detectron2's DefaultPredictor does it, by a model that is whole."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultPredictor

from virtex_det.checkpoint import follow_weights
from virtex_det.data.mappers.detection import ResizeShortestEdge
from virtex_det.engine.evaluate import load_trained
from virtex_det.errors import UserError


class Predictor(DefaultPredictor):
    """A DefaultPredictor whose weights fill the whole model, heads included.

    DefaultPredictor itself loads what fits and only logs the rest: from a file without heads it predicts with random
    ones. Everything else is its own: the image is (H, W, 3) uint8 in BGR order, the answer one dict.

    Attributes:
        report: the LoadReport of the weights.

    Example:
        >>> cfg = load_config("output/run/config.yaml", ["MODEL.WEIGHTS", "output/run/model_final.pth"])
        >>> predictor = Predictor(cfg)
        >>> predictor(read_picture("photo.jpg", predictor.cfg))["instances"]
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of a detector; MODEL.WEIGHTS names its trained weights.

        Raises:
            UserError: there are no weights, or they leave a part of the model at random.
        """
        if not cfg.MODEL.WEIGHTS:
            raise UserError("MODEL.WEIGHTS is empty: prediction needs a trained model. Name a run's model_final.pth.")
        if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}, but Predictor takes RGB and BGR models only.")
        self.cfg = follow_weights(cfg).clone()
        self.model, self.report, _ = load_trained(self.cfg, self.cfg.MODEL.WEIGHTS)
        self.model.eval()
        if self.cfg.DATASETS.TEST:
            self.metadata = MetadataCatalog.get(self.cfg.DATASETS.TEST[0])
        shortest = self.cfg.INPUT.MIN_SIZE_TEST
        self.aug = ResizeShortestEdge([shortest, shortest], self.cfg.INPUT.MAX_SIZE_TEST)
        self.input_format = self.cfg.INPUT.FORMAT
