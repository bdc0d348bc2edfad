"""Every config key that virtex_det adds to Detectron2's, with its default and its meaning."""

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg as get_detectron2_cfg


def add_virtex_det_config(cfg: CN) -> None:
    """Add virtex_det's keys to a Detectron2 config, in place; Detectron2's own keys keep their defaults."""
    _add_model_keys(cfg)
    _add_data_keys(cfg)
    _add_solver_keys(cfg)


def get_cfg() -> CN:
    """Return Detectron2's default config with virtex_det's keys added.

    Example:
        >>> get_cfg().MODEL.TEXTUAL.HIDDEN_SIZE
        1024
    """
    cfg = get_detectron2_cfg()
    add_virtex_det_config(cfg)
    return cfg


def _add_model_keys(cfg: CN) -> None:
    # bf16 autocast with channels-last memory: faster on CPUs with bf16 and on GPUs. Changes results in the third digit.
    cfg.MODEL.BF16 = False
    # ROIAlign as one gather on CPU instead of torchvision's loop: faster in training, equal up to float32 rounding.
    cfg.MODEL.GATHER_ROI_ALIGN = True
    # Accept a weights file that fills only a part of the backbone. The load report still lists what is missing.
    cfg.MODEL.ALLOW_PARTIAL_WEIGHTS = False
    # Family of MODEL.WEIGHTS, where its content would be taken for another; empty recognises it by content.
    cfg.MODEL.WEIGHTS_FORMAT = ""
    # Let INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD be those that the weights were trained with, whatever they are set to.
    cfg.MODEL.FOLLOW_WEIGHTS = False

    # What MODEL.RESNETS cannot say about build_caption_resnet_backbone; depth, width and norm are read from there.
    cfg.MODEL.CAPTION_RESNET = CN()
    # Start the last norm of each residual branch at zero (Goyal et al. 2017, sec. 5.1); VirTex pretrains with it.
    cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL = False
    # "basic": a 7x7 convolution and a max pool. "deep": three 3x3 convolutions, the first two of half the width, and a
    # max pool (ResNet-C, D and S). "clip": the same with an average pool.
    cfg.MODEL.CAPTION_RESNET.STEM = "basic"
    # "conv": strided convolutions, as in Detectron2. "avg_shortcut": an average pool halves the shortcut (ResNet-D).
    # "clip": average pools after the 3x3 convolution and in the shortcut; no convolution of a block has a stride.
    cfg.MODEL.CAPTION_RESNET.DOWNSAMPLE = "conv"
    # Blocks of res2 to res5, instead of what DEPTH says: (4, 6, 10, 6) for CLIP's RN50x4.
    cfg.MODEL.CAPTION_RESNET.BLOCKS = ()

    # Transformer decoder over the image grid (VirTex, sec. 3).
    cfg.MODEL.TEXTUAL = CN()
    # Pieces of the vocabulary; must equal that of INPUT.CAPTION.TOKENIZER.
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 10000
    cfg.MODEL.TEXTUAL.NUM_LAYERS = 1
    cfg.MODEL.TEXTUAL.HIDDEN_SIZE = 1024
    cfg.MODEL.TEXTUAL.ATTENTION_HEADS = 16
    cfg.MODEL.TEXTUAL.FEEDFORWARD_SIZE = 4096
    cfg.MODEL.TEXTUAL.DROPOUT = 0.1
    # Layer norm before each block ("transdec_prenorm") rather than after it ("transdec_postnorm").
    cfg.MODEL.TEXTUAL.NORM_FIRST = False
    # Standard deviation of the initial weights. BERT's and VirTex's 0.02 suits widths of 512 and more; in a decoder far
    # narrower it leaves so little of the image in the sum that learning from it starts late. 1 / sqrt(width) serves.
    cfg.MODEL.TEXTUAL.INIT_STD = 0.02


def _add_data_keys(cfg: CN) -> None:
    # Part of each training set to use, by image id: nested between fractions, the same on every rank and machine.
    cfg.DATASETS.TRAIN_FRACTION = 1.0
    # Which part: another seed draws another one.
    cfg.DATASETS.SUBSET_SEED = 0

    # Turns a dataset dict into a training example: "DetectionMapper" or "CaptionMapper".
    cfg.DATALOADER.MAPPER = "DetectionMapper"

    # Resize images with torch's uint8 antialiased kernel instead of Pillow's: an image is loaded about twice as fast;
    # 0.1 % of the pixel values differ by 1, very few by 2.
    cfg.INPUT.FAST_RESIZE = False

    # Image and caption augmentation of pretraining (VirTex, sec. 3.2 and its public code).
    cfg.INPUT.CAPTION = CN()
    # SentencePiece model file, made by tools/build_vocabulary.py.
    cfg.INPUT.CAPTION.TOKENIZER = ""
    # Tokens per caption, boundaries included; longer captions are cut.
    cfg.INPUT.CAPTION.MAX_LENGTH = 30
    # Side of the square training crop, in pixels, and its share of the image area.
    cfg.INPUT.CAPTION.CROP_SIZE = 224
    cfg.INPUT.CAPTION.CROP_SCALE = (0.2, 1.0)
    # Horizontal flip; "left" and "right" change places in the caption.
    cfg.INPUT.CAPTION.FLIP_PROB = 0.5
    # Brightness, contrast, saturation, hue; and how often.
    cfg.INPUT.CAPTION.COLOR_JITTER = (0.4, 0.4, 0.4, 0.1)
    cfg.INPUT.CAPTION.COLOR_JITTER_PROB = 0.8


def _add_solver_keys(cfg: CN) -> None:
    # "SGD" or "AdamW", fused where PyTorch has it: the same update, computed at once.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Learning rate of the backbone; 0 means BASE_LR times BACKBONE_MULTIPLIER. Schedules scale all alike.
    cfg.SOLVER.BACKBONE_LR = 0.0
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Regular expression: parameters whose name matches get no weight decay. Empty matches none.
    cfg.SOLVER.NO_DECAY = ""
    # LookAhead (Zhang et al. 2019): every STEPS updates the weights go back by 1 - ALPHA towards where they started.
    cfg.SOLVER.LOOKAHEAD = CN()
    cfg.SOLVER.LOOKAHEAD.ENABLED = False
    cfg.SOLVER.LOOKAHEAD.STEPS = 5
    cfg.SOLVER.LOOKAHEAD.ALPHA = 0.5

    # Identifier of the published recipe that a config follows, for the result record.
    cfg.PROTOCOL = ""
