#!/usr/bin/env python3
"""Time each pretraining method against VirTex's bicaptioning, on the same images and captions.

python timing/pretraining.py                 published sizes, 8 scenes of 256 pixels, cropped to 224
python timing/pretraining.py --scale scenes  configs of the built-in scenes, 64 scenes of 96 pixels
python timing/pretraining.py --scale scenes --captions 5     five captions of each image in a step

The methods take turns. A step is forward, backward and update as in training, without workers;
loading turns the same images into examples. Seconds are CPU time over all threads. A ratio is the
median over rounds of bicaptioning's seconds / the method's (above 1: faster than VirTex). The
frozen BERT of ICMLM has BERT-base's size, and random weights, which take the same time.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from virtex_det.data import train_tokenizer
from virtex_det.data.build import MAPPER_REGISTRY
from virtex_det.data.concepts import PARTS_OF_SPEECH, build_concepts
from virtex_det.data.datasets import load_captions, load_dataset
from virtex_det.data.datasets.builtin import register_builtin_datasets
from virtex_det.data.datasets.scenes import generate_scenes
from virtex_det.data.region_texts import vocabulary_texts
from virtex_det.data.tokenizers import read_tokenizer
from virtex_det.engine import Trainer, load_config
from virtex_det.errors import UserError

REFERENCE = "bicaptioning"
PUBLISHED = {
    REFERENCE: "_base_bicaptioning_R_50_L1_H1024.yaml",
    "ICMLM tfm": "icmlm/icmlm_tfm_R_50.yaml",
    "ICMLM att-fc": "icmlm/icmlm_att_fc_R_50.yaml",
    "LocTex": "loctex/loctex_R_50.yaml",
    "contrastive, no traces": "loctex/contrastive_R_50.yaml",
}
SCENES = {
    REFERENCE: "scenes_bicaptioning.yaml",
    "token classification": "scenes_token_classification.yaml",
    "masked LM": "scenes_masked_lm.yaml",
    "ICMLM tfm": "scenes_icmlm_tfm.yaml",
    "ICMLM att-fc": "scenes_icmlm_att_fc.yaml",
    "LocTex": "scenes_loctex.yaml",
    "contrastive, no traces": "scenes_contrastive.yaml",
    "CapPa": "scenes_cappa.yaml",
    "LocCa": "scenes_locca.yaml",
    "SigLIP": "scenes_siglip.yaml",
    "SuperClass": "scenes_superclass.yaml",
}
# Methods, images, their side in pixels, and vocabulary size of the model, which is larger than that
# of a tokenizer trained on the few captions.
SCALES = {"published": (PUBLISHED, 8, 256, 10000), "scenes": (SCENES, 64, 96, 300)}
BERT_VOCABULARY = 30522


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scale",
        choices=list(SCALES),
        default="published",
        help="methods and sizes (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="number of rounds (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, help="images per batch (default: the scale's)")
    parser.add_argument(
        "--captions", type=int, default=1, help="captions of an image (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Time all methods and print the table."""
    torch.set_num_threads(args.threads)
    methods, images, side, pieces = SCALES[args.scale]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder, args.images or images, side)
        steps, loads = {}, {}
        for method, file in methods.items():
            cfg = on_scenes(load_config(f"pretrain/{file}", []), folder)
            cfg.INPUT.CAPTION.PER_IMAGE = args.captions
            loads[method] = batch_loader(cfg)
            steps[method] = training_step(of_full_vocabulary(cfg, pieces), loads[method]())
        rows = compare(measure(steps, args.rounds, "steps"), measure(loads, args.rounds, "loading"))
    print(tabulate(rows, headers="keys", floatfmt=("", ".3f", ".2f", ".3f", ".2f")))
    if args.json:
        settings = {
            "torch": torch.__version__,
            "threads": args.threads,
            "scale": args.scale,
            "rounds": args.rounds,
        }
        args.json.write_text(json.dumps({**settings, "methods": rows}, indent=2))


def draw(folder: Path, images: int, side: int) -> None:
    """Write scenes with captions and narratives."""
    scenes = folder / "scenes"
    generate_scenes(
        scenes, num_train=1, num_val=1, num_unlabelled=images, image_size=side, num_workers=1
    )
    register_builtin_datasets(folder)


def build_text_files(folder: Path, published_bert: str) -> tuple[str, str]:
    """Return the paths of a tokenizer and of concepts, which are written once.

    The tokenizer is a BERT's if the config names a BERT.
    """
    tokenizer = folder / ("bert" if published_bert else "vocabulary.model")
    concepts = folder / f"{tokenizer.name}_concepts.json"
    if concepts.exists():
        return str(tokenizer), str(concepts)
    captions = load_captions(["scenes_unlabelled_captions"])
    if published_bert:
        write_bert(tokenizer, sorted(set(" ".join(captions).lower().split())))
    else:
        train_tokenizer([*captions, *vocabulary_texts(100)], tokenizer, vocab_size=100)
    pieces = read_tokenizer(str(tokenizer))
    build_concepts(captions, pieces, PARTS_OF_SPEECH, 100).write(concepts)
    return str(tokenizer), str(concepts)


def write_bert(folder: Path, words: list[str]) -> None:
    """Write an untrained BERT of BERT-base's size whose vocabulary holds some words."""
    from transformers import BertConfig, BertModel

    pieces = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    pieces += [f"[unused{number}]" for number in range(1, BERT_VOCABULARY + 1 - len(pieces))]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    BertModel(BertConfig(vocab_size=BERT_VOCABULARY)).save_pretrained(folder)


def on_scenes(cfg: CfgNode, folder: Path) -> CfgNode:
    """Return a method's config on the scenes, with tokenizer and concepts of their captions."""
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    has_traces = cfg.DATALOADER.MAPPER in ("NarrativeMapper", "RegionMapper")
    kind = "narratives" if has_traces else "captions"
    cfg.DATASETS.TRAIN = (f"scenes_unlabelled_{kind}",)
    text = cfg.INPUT.CAPTION
    text.TOKENIZER, concepts = build_text_files(folder, cfg.MODEL.TEXT_ENCODER.WEIGHTS)
    text.CONCEPTS = concepts if text.CONCEPTS else ""
    if cfg.MODEL.TEXT_ENCODER.WEIGHTS:
        cfg.MODEL.TEXT_ENCODER.WEIGHTS = text.TOKENIZER
    return cfg


def batch_loader(cfg: CfgNode) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that makes a batch from the images, with the same crops at every call."""
    mapper = MAPPER_REGISTRY.get(cfg.DATALOADER.MAPPER)(cfg, True)
    dicts = load_dataset(cfg.DATASETS.TRAIN[0])

    def load() -> list[dict[str, Any]]:
        torch.manual_seed(0)
        return [mapper(example) for example in dicts]

    return load


def of_full_vocabulary(cfg: CfgNode, pieces: int) -> CfgNode:
    """Return a config whose model has ``pieces`` in its vocabulary; a BERT's stays."""
    if cfg.MODEL.TEXT_ENCODER.WEIGHTS:
        return cfg
    cfg = cfg.clone()
    cfg.INPUT.CAPTION.TOKENIZER, cfg.MODEL.TEXTUAL.VOCAB_SIZE = "", pieces
    return cfg


def training_step(cfg: CfgNode, batch: list[dict[str, Any]]) -> Callable[[], None]:
    """Return a training step on a batch as a function."""
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).train()
    optimizer = Trainer.build_optimizer(cfg, model)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(list(model(batch).values())).sum().backward()
        optimizer.step()

    return step


def measure(jobs: dict[str, Callable[[], Any]], rounds: int, title: str) -> dict[str, list[float]]:
    """Return each job's CPU seconds by round, after one to warm up; every other goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in tqdm(range(-1, rounds), desc=title, leave=False):
        for name in list(jobs)[:: -1 if number % 2 else 1]:
            start = time.process_time()
            jobs[name]()
            if number >= 0:
                seconds[name].append(time.process_time() - start)
    return seconds


def compare(steps: dict[str, list[float]], loads: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row per method: medians, and medians of bicaptioning's seconds / its own."""
    return [
        {
            "method": method,
            "step s": float(np.median(steps[method])),
            "step ratio": float(np.median(np.divide(steps[REFERENCE], steps[method]))),
            "loading s": float(np.median(loads[method])),
            "loading ratio": float(np.median(np.divide(loads[REFERENCE], loads[method]))),
        }
        for method in steps
    ]


if __name__ == "__main__":
    try:
        main(parse_args())
    except UserError as error:
        sys.exit(f"error: {error}")
