"""Serves the page on loopback, and forbids the browser to load anything from elsewhere.

It knows nothing of what is on the page.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo.errors import CannotStart

HOST = "127.0.0.1"
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; "
    "frame-ancestors 'self'; object-src 'none'"
)
UPLOAD = 200 * 1024 * 1024  # bytes of a file


class Web:
    """A running page; `with Web(blocks, port=0) as web: web.url`."""

    def __init__(self, blocks: Any, *, port: int, css: Path) -> None:
        """Binds the port, 0 for any free one; raises `CannotStart` when another process has it."""
        import uvicorn

        self._socket = _bind(port)
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/"
        config = uvicorn.Config(_application(blocks, css), log_level="warning", timeout_graceful_shutdown=2)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="page", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()


def silence() -> None:
    """Before Gradio is imported: no counting, no look for newer versions, no Node server."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", GRADIO_SSR_MODE="False")


def _application(blocks: Any, css: Path) -> Any:
    import gradio as gr
    from fastapi import FastAPI

    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @application.middleware("http")
    async def closed(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    return gr.mount_gradio_app(
        application,
        blocks,
        path="/",
        footer_links=[],
        ssr_mode=False,
        max_file_size=UPLOAD,
        theme=gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono),
        css_paths=css,
    )


def _bind(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise CannotStart(
            f"--page-port {port}: {error.strerror}; give another one, or 0 for any free one", code=4
        ) from None
    return listener
