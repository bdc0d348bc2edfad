"""The notebook of docs/: kept without outputs, and it runs from its first cell to its last."""

import nbclient
import nbformat
import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "your_own_data.ipynb"
# What makes it short. A model that has learned so little finds nothing that it is sure of.
SHORTER = {
    "--train 300 --val 50": "--train 12 --val 5",
    "--epochs 4": "--epochs 1",
    "threshold=0.3": "threshold=0.0",
    "predict --run output/tiny scenes/val --threshold 0.3": "predict --run output/tiny scenes/val",
    "--to onnx tiny.onnx": "--to onnx tiny.onnx MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0",
}


def test_it_is_valid_small_and_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert NOTEBOOK.stat().st_size < 20_000


@pytest.mark.slow
def test_it_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript", "supervision"):
        pytest.importorskip(package)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    text = NOTEBOOK.read_text(encoding="utf-8")
    for long, short in SHORTER.items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    notebook = nbformat.reads(text, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1800, resources=folder).execute()
    for name in ("data.html", "output/tiny/report.html", "output/predictions/detections.html"):
        assert (tmp_path / name).stat().st_size > 10_000  # what an IFrame shows
    drawn = next(cell for cell in notebook.cells if cell.source == "detections.draw()")
    assert "image/png" in drawn.outputs[0].data
