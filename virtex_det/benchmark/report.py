"""One self-contained HTML page from the run folders of a comparison: table, AP curves, pictures, cost."""

import base64
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from virtex_det.benchmark.records import ResultRecord, read_records
from virtex_det.benchmark.statistics import RANDOM, by_arm, initialisation, last_records, spread
from virtex_det.utils import write_atomically

METRICS = (
    ("Box AP", "bbox", "AP"),
    ("Box AP50", "bbox", "AP50"),
    ("Mask AP", "segm", "AP"),
    ("Mask AP50", "segm", "AP50"),
)
SCORE_THRESHOLD = 0.5
COLOURS = {RANDOM: "#8c8c8c", "virtex_det_pretraining": "#1f6fb2"}
NAMES = {RANDOM: "from random", "virtex_det_pretraining": "from captions"}


def write_report(
    page: str | Path,
    run_folders: Sequence[str | Path],
    *,
    pretraining: str | Path,
    annotations: str | Path,
    image_root: str | Path,
    facts: dict[str, str],
    pictures: int = 6,
) -> None:
    """Write the page that compares fine-tuned runs by what they started from.

    Args:
        page: HTML file to write.
        run_folders: fine-tuned runs, each with ``results.jsonl`` and ``inference/``.
        pretraining: the run folder that the weights came from, for its cost.
        annotations: COCO instances JSON of the evaluation set.
        image_root: folder of its images.
        facts: rows for the "what was run" list, by name.
        pictures: number of images on the sheet.
    """
    records = {Path(folder): read_records(folder) for folder in run_folders}
    every = [record for found in records.values() for record in found]
    final = last_records(every)
    template = jinja2.Environment(autoescape=True, loader=jinja2.PackageLoader("virtex_det.benchmark", "."))
    html = template.get_template("report.html.j2").render(
        rows=table_rows(final),
        gains=gains(final),
        curves=_as_data_uri(draw_curves(every)),
        sheet=_sheet(records, Path(annotations), Path(image_root), pictures),
        threshold=SCORE_THRESHOLD,
        pretrain_minutes=training_seconds(pretraining) / 60,
        finetune_seconds=np.mean([training_seconds(folder) for folder in run_folders]),
        record=final[0],
        facts=facts,
    )
    write_atomically(page, html)


def table_rows(records: Sequence[ResultRecord]) -> list[dict[str, Any]]:
    """Return one row per arm: labels, initialisation, number of seeds, and each metric as mean and spread."""
    rows = []
    for (fraction, init), runs in by_arm(records).items():
        cells = {title: spread(_metric(run, task, name) for run in runs) for title, task, name in METRICS}
        rows.append({"labels": f"{fraction:.0%}", "init": NAMES.get(init, init), "seeds": len(runs)} | cells)
    return rows


def gains(records: Sequence[ResultRecord]) -> list[str]:
    """Say for each fraction of the labels how the means compare with random init, and in how many seeds."""
    arms = by_arm(records)
    sentences = []
    for (fraction, init), runs in arms.items():
        baseline = {run.seed: run for run in arms.get((fraction, RANDOM), [])}
        pairs = [(run, baseline[run.seed]) for run in runs if run.seed in baseline]
        if init == RANDOM or not pairs:
            continue
        for task, title in (("bbox", "box AP"), ("segm", "mask AP")):
            ours, theirs = ([_metric(run, task, "AP") for run in side] for side in zip(*pairs, strict=True))
            ratio = np.mean(ours) / np.mean(theirs) if np.mean(theirs) > 0 else float("inf")
            better = sum(a > b for a, b in zip(ours, theirs, strict=True))
            sentences.append(
                f"{fraction:.0%} of the labels: {title} {NAMES.get(init, init)} is {ratio:.1f} times that from random "
                f"({np.mean(ours):.1f} against {np.mean(theirs):.1f}), higher in {better} of {len(pairs)} seeds."
            )
    return sentences


def training_seconds(run_folder: str | Path) -> float:
    """Return the time a run spent in training steps, from its ``metrics.json``; interruptions do not count."""
    seconds, previous = 0.0, -1
    for line in (Path(run_folder) / "metrics.json").read_text().splitlines():
        row = json.loads(line)
        if "time" in row and row["iteration"] > previous:
            seconds += row["time"] * (row["iteration"] - previous)
            previous = row["iteration"]
    return seconds


def draw_curves(records: Sequence[ResultRecord]) -> Figure:
    """Draw box and mask AP over training iterations: a line per arm, a band of one standard deviation over seeds."""
    fractions = sorted({record.train_fraction for record in records})
    figure, axes = plt.subplots(
        len(fractions), 2, figsize=(9, 2.9 * len(fractions)), squeeze=False, sharex=True, layout="constrained"
    )
    for row, fraction in zip(axes, fractions, strict=True):
        for axis, (task, title) in zip(row, (("bbox", "Box AP"), ("segm", "Mask AP")), strict=True):
            _draw_arms(axis, [record for record in records if record.train_fraction == fraction], task)
            axis.set(title=f"{title}, {fraction:.0%} of the labels", xlabel="fine-tuning iteration", ylim=(0, None))
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False, loc="upper left")
    return figure


def _draw_arms(axis: plt.Axes, records: Sequence[ResultRecord], task: str) -> None:
    for (_, init), runs in by_arm(records).items():
        by_iteration = defaultdict(list)
        for run in runs:
            by_iteration[run.iteration or 0].append(_metric(run, task, "AP"))
        x = sorted(by_iteration)
        found = [spread(by_iteration[iteration]) for iteration in x]
        mean = np.array([point.mean for point in found])
        deviation = np.array([point.deviation or 0.0 for point in found])
        axis.plot(x, mean, marker="o", markersize=4, color=COLOURS.get(init), label=NAMES.get(init, init))
        axis.fill_between(x, mean - deviation, mean + deviation, color=COLOURS.get(init), alpha=0.15, linewidth=0)


def _sheet(
    records: dict[Path, list[ResultRecord]], annotations: Path, image_root: Path, pictures: int
) -> list[dict[str, Any]]:
    """Return one dict per image: data URIs of the ground truth and of each initialisation's detections."""
    truth = COCO(annotations)
    names = {category["id"]: category["name"] for category in truth.loadCats(truth.getCatIds())}
    columns = {"ground truth": None} | _runs_to_show(records)
    rows = []
    for image_id in _spaced_images(truth, pictures):
        info = truth.loadImgs(image_id)[0]
        image = np.asarray(Image.open(image_root / info["file_name"]).convert("RGB"))[:, :, ::-1]
        row = {}
        for title, predictions in columns.items():
            found = truth.imgToAnns[image_id] if predictions is None else predictions.get(image_id, [])
            row[title] = _encode(draw_instances(image, found, names))
        rows.append(row)
    return rows


def _runs_to_show(records: dict[Path, list[ResultRecord]]) -> dict[str, dict[int, list[dict]]]:
    """Return confident detections by image of one run per initialisation: most labels, lowest seed."""
    finished = {folder: found[-1] for folder, found in records.items() if found}
    order = sorted(finished, key=lambda folder: (-finished[folder].train_fraction, finished[folder].seed))
    shown: dict[str, dict[int, list[dict]]] = {}
    for init in sorted({initialisation(record) for record in finished.values()}, key=lambda name: name != RANDOM):
        folder = next(folder for folder in order if initialisation(finished[folder]) == init)
        path = folder / "inference" / finished[folder].dataset / "coco_instances_results.json"
        by_image = defaultdict(list)
        for detection in json.loads(path.read_text()):
            if detection["score"] >= SCORE_THRESHOLD:
                by_image[detection["image_id"]].append(detection)
        shown[f"{NAMES.get(init, init)}, {finished[folder].train_fraction:.0%} of the labels"] = by_image
    return shown


def _spaced_images(truth: COCO, count: int) -> list[int]:
    """Return images evenly spaced through those with several instances: neither chosen nor drawn."""
    several = [image_id for image_id in sorted(truth.imgs) if len(truth.imgToAnns[image_id]) > 1] or sorted(truth.imgs)
    return several[:: max(len(several) // count, 1)][:count]


def draw_instances(image: np.ndarray, instances: Sequence[dict], names: dict[int, str], scale: int = 4) -> np.ndarray:
    """Draw masks, outlines and class names over an image.

    Args:
        image: (H, W, 3) BGR.
        instances: COCO annotations or results, masks as RLE.
        names: class names by category id.
        scale: enlargement, so that small images can carry text.

    Returns:
        (scale H, scale W, 3) BGR.
    """
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    palette = (plt.get_cmap("tab10")(np.arange(10))[:, 2::-1] * 255).astype(int)
    labels = []
    for instance in instances:
        colour = palette[instance["category_id"] % 10].tolist()
        mask = mask_tools.decode(instance["segmentation"])
        mask = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        canvas[mask > 0] = canvas[mask > 0] * 0.75 + np.array(colour) * 0.25
        cv2.drawContours(canvas, contours, -1, colour, 3)
        x, y = (int(scale * edge) for edge in instance["bbox"][:2])
        score = f" {instance['score']:.2f}" if "score" in instance else ""
        labels.append((names[instance["category_id"]] + score, x, y))
    for text, x, y in labels:
        _draw_label(canvas, text, x, y)
    return canvas


def _draw_label(canvas: np.ndarray, text: str, x: int, y: int) -> None:
    """Write white on black above the point (x, y), or as near as the picture's border allows."""
    font = (cv2.FONT_HERSHEY_SIMPLEX, 0.5)
    (width, height), _ = cv2.getTextSize(text, *font, 1)
    left, bottom = max(min(x, canvas.shape[1] - width - 4), 0), max(y, height + 8)
    cv2.rectangle(canvas, (left, bottom - height - 8), (left + width + 4, bottom), (20, 20, 20), -1)
    cv2.putText(canvas, text, (left + 2, bottom - 5), *font, (255, 255, 255), 1, cv2.LINE_AA)


def _metric(record: ResultRecord, task: str, name: str) -> float:
    return record.metrics.get(task, {}).get(name) or 0.0


def _encode(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode()


def _as_data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
