"""The notebook from a CSV to a served model, executed as it stands."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from tests.examples.conftest import ROOT


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_your_csv_to_a_served_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(  # type: ignore[no-untyped-call]  # it has no types
        ROOT / "examples" / "own_domain.ipynb", as_version=4
    )
    assert not any(cell.get("outputs") for cell in notebook.cells)  # none is kept in the repository
    NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ()))
    assert "Served: " in printed
    assert printed.count(" none\n") + printed.count(" routing\n") == 3
    assert notebook.cells[-1].outputs[0]["data"]["text/plain"] == "0"
