"""What a start must not wait for."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "transformers", "onnxruntime", "openvino", "opentelemetry", "pandas")


def test_the_ports_wait_for_no_model_library() -> None:
    """All that is imported before they answer; these take seconds, and an orchestrator probes meanwhile."""
    code = (
        "import sys, serving.__main__, serving.running, serving.settings;"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
