"""The service as a child process of the page: started, watched, stopped. It asks it nothing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

PATIENCE = 30.0  # seconds to drain before it is killed


class Child:
    """`stratified-serve` with every variant loaded; `with Child(models, port=50051, gone=…)`."""

    def __init__(
        self, models: Path, *, port: int, more: Sequence[str] = (), gone: Callable[[int], None]
    ) -> None:
        """`gone` is called with the exit code, on another thread, when it ends before it is told to."""
        self._command = [sys.executable, "-m", "serving", "--models", str(models), "--port", str(port)]
        self._command += ["--load", "all", "--settle-seconds", "0", *more]
        self._gone = gone
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._process is None or not self.running:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if not self._stopping.is_set():
            self._gone(code)
