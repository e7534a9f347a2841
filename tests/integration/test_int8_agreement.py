"""int8 gives the labels of fp32 on 2,000 real texts, as docs/models.md says of each file; minutes a variant.

Needs trained weights: `make int8-agreement` names the results folder of a finished sweep.
"""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.texts import SOURCES, real_texts
from stratified_models.bundle import Bundle, copy_bundle, load_model, read_bundle
from stratified_models.config import VARIANTS
from trainer_job.__main__ import main
from trainer_job.export import _batches, _encode, _logits

TEXTS = 2000
AT_LEAST = 0.99
ABSENT = sorted({source[0] for source in SOURCES if find_spec(source[0]) is None})

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(ABSENT), reason=f"real texts need the data packages {', '.join(ABSENT)}"),
    pytest.mark.skipif(
        "INT8_RESULTS" not in os.environ,
        reason="needs trained weights: run by make int8-agreement, on a finished sweep",
    ),
]


def labels_of_torch(bundle: Bundle, encoded: list[list[int]]) -> npt.NDArray[np.intp]:
    """The label of every row, domain unknown, in fp32."""
    import torch

    model = load_model(bundle).prepare_for_inference()
    found = np.zeros(len(encoded), dtype=np.intp)
    for batch in _batches([len(row) for row in encoded]):
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(encoded[place]) for place in batch],
            batch_first=True,
            padding_value=int(model.config.pad_token_id or 0),
        )
        lengths = torch.tensor([len(encoded[place]) for place in batch])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        with torch.inference_mode():
            found[batch] = model(input_ids=ids, attention_mask=mask).logits.argmax(-1).numpy()
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_gives_the_labels_of_fp32(variant: str, tmp_path: Path) -> None:
    results = Path(os.environ["INT8_RESULTS"])
    assert results.is_dir(), f"INT8_RESULTS={results} is no directory; name the results of a finished sweep"
    if not (results / variant / "manifest.json").exists():
        pytest.skip(f"{results} holds no {variant}")
    copy = copy_bundle(results / variant, tmp_path / "results" / variant)
    shutil.copytree(results / ".state", tmp_path / "results" / ".state")  # which rows it was trained on
    # Of the quickstart's 80 validation rows a domain one alone is more than --max-loss allows.
    assert main(["export", str(copy.path), "--quantize", "int8", "--max-loss", "100"]) == 0
    bundle = read_bundle(copy.path)
    encoded = _encode(bundle, real_texts(TEXTS))
    expected = labels_of_torch(bundle, encoded)
    assert len(expected) == TEXTS
    assert len(set(expected)) > 1, "a model that gives one label agrees with anything"
    files = [name for name, entry in bundle.manifest.exports.items() if entry.precision == "int8"]
    assert files, "export wrote an int8 file"
    for name in files:
        same = _logits(bundle, bundle.path / name, encoded).argmax(axis=1) == expected
        print(f"{variant}, {name}: {same.mean():.2%} of {TEXTS} texts")
        assert same.mean() >= AT_LEAST, f"{name}: {same.mean():.2%}"
