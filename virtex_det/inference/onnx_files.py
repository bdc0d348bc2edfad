"""ONNX files of exportable detectors, by PyTorch's exporter; needs the extra [export]."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import opset18
from torch import Tensor

from virtex_det.modeling.exportable import ExportableDetector, grouped_nms, program_of

OPSET = 18  # RoiAlign needs 16
op: Any = opset18  # of OPSET; its types know no constants
_LOWEST = -3e38  # of finite scores


@torch.library.custom_op("virtex_det::grouped_nms", mutates_args=())
def _grouped_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Do what `grouped_nms` does; in the graph it is one operator, for which ONNX has its own."""
    return grouped_nms(boxes, scores, threshold)


@_grouped_nms.register_fake
def _(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def _in_onnx(boxes: Any, scores: Any, threshold: float) -> Any:
    """Translate `grouped_nms`: ONNX's operator knows groups and kinds itself, in float32."""
    number = op.Constant(value_int=scores.shape[2])
    limit, lowest = op.Constant(value_float=threshold), op.Constant(value_float=_LOWEST)
    # shape: (kept, 3): group, kind and index
    kept = op.NonMaxSuppression(boxes, scores, number, limit, lowest)
    nobody = op.Expand(op.Constant(value_int=0), op.Shape(scores))
    yes = op.Expand(op.Constant(value_int=1), op.Shape(kept, end=1))
    return op.Cast(op.ScatterND(nobody, kept, yes), to=onnx.TensorProto.BOOL)


def write_onnx(
    model: ExportableDetector, example: Tensor, path: Path, metadata: dict[str, Any]
) -> None:
    """Write a detector as one ONNX file, whose batch, height and width are free.

    Args:
        model: with the layers to write; its NMS becomes ONNX's.
        example: (2, 3, height, width) uint8.
        path: to write.
        metadata: its values are written as JSON, each under its name.
    """
    program = program_of(type(model)(model.model, model.channels, _grouped_nms), example)
    written: Any = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[metadata["input"]["name"]],
        output_names=list(model.outputs),
        opset_version=OPSET,
        custom_translation_table={torch.ops.virtex_det.grouped_nms.default: _in_onnx},
        verbose=False,
    )
    file = written.model_proto
    _name_sizes(file, metadata["input"]["shape"])
    onnx.helper.set_model_props(file, {key: json.dumps(metadata[key]) for key in metadata})
    path.write_bytes(file.SerializeToString())


def _name_sizes(model: onnx.ModelProto, names: Sequence[str | int]) -> None:
    """Replace the exporter's names of free sizes, such as s34, in inputs and outputs."""
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    new = {size.dim_param: name for size, name in zip(sizes, names, strict=True) if size.dim_param}
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in new:
                size.dim_param = new[size.dim_param]


def read_onnx(path: Path) -> Any:
    """Return a function that runs an ONNX file on the CPU."""
    # Its official builds report their use to Microsoft otherwise; read when it is first imported.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [name] = (each.name for each in session.get_inputs())

    def run(images: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: images.numpy()})]

    return run
