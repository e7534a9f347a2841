"""AdminService through stock stubs on its own port: what it changes, what it refuses, and whom."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from prometheus_client import CollectorRegistry

from protos.stratified.v1 import admin_pb2, admin_pb2_grpc, model_pb2
from serving.app import App
from serving.engines.fake import FakeSource, fake_card
from serving.errors import BadSettings, PortInUse
from serving.logs import configure
from tests.serving.conftest import Running, Start, counted, settings
from tests.serving.rpc.test_servicers import failure_of_error, refused
from tests.serving.test_fleet import NEW, OLD, answered_by

TOKEN = "an-operators-token-0123456789"
Load, Unload, Default, Level = (
    admin_pb2.LoadModelRequest,
    admin_pb2.UnloadModelRequest,
    admin_pb2.SetDefaultModelRequest,
    admin_pb2.SetLogLevelRequest,
)


async def begin(start: Start, **values: Any) -> tuple[Running, Any]:
    running = await start(watch_seconds=0, admin_port=0, **values)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{running.ports.admin}")
    return running, admin_pb2_grpc.AdminServiceStub(channel)


async def test_it_is_off_unless_a_port_is_given(start: Start) -> None:
    running = await start()
    assert running.ports.admin == 0
    stub: Any = admin_pb2_grpc.AdminServiceStub(running.channel)
    error = await refused(stub.LoadModel(Load(model="routing")))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED, "and never on the port of the service"


async def test_a_model_is_loaded_made_the_default_and_let_go(start: Start) -> None:
    running, admin = await begin(start)
    reply = await admin.LoadModel(Load(model="routing"))
    assert (reply.name, reply.version, reply.sha256, reply.previous_sha256) == ("routing", "0", OLD, "")
    assert (await admin.SetDefaultModel(Default(model="routing"))).previous_model == "none"
    await admin.UnloadModel(Unload(model="none"))
    listed = await running.models.ListModels(model_pb2.ListModelsRequest())
    assert listed.default_model == "routing"
    assert [entry.state for entry in listed.models] == [
        model_pb2.MODEL_STATE_AVAILABLE, model_pb2.MODEL_STATE_READY]  # fmt: skip


async def test_loading_a_loaded_one_takes_the_newest_bundle(start: Start) -> None:
    running, admin = await begin(start)
    running.source.publish(fake_card(sha256=NEW))
    reply = await admin.LoadModel(Load(model="none"))
    assert (reply.sha256, reply.previous_sha256) == (NEW, OLD)
    assert await answered_by(running) == NEW
    assert (await admin.LoadModel(Load(model="none"))).previous_sha256 == NEW, "nothing to be done"


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason"),
    [
        ("LoadModel", Load(model="mars"), "NOT_FOUND", "MODEL_NOT_FOUND"),
        ("LoadModel", Load(), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("LoadModel", Load(model="moe"), "FAILED_PRECONDITION", "MODEL_UNUSABLE"),
        ("UnloadModel", Unload(model="routing"), "NOT_FOUND", "MODEL_NOT_FOUND"),
        ("UnloadModel", Unload(model="none"), "FAILED_PRECONDITION", "MODEL_IS_DEFAULT"),
        ("SetDefaultModel", Default(model="mars"), "NOT_FOUND", "MODEL_NOT_FOUND"),
        ("SetDefaultModel", Default(model="moe"), "FAILED_PRECONDITION", "MODEL_UNUSABLE"),
        ("SetDefaultModel", Default(), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("SetLogLevel", Level(), "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ("SetLogLevel", Level(level=9), "INVALID_ARGUMENT", "INVALID_REQUEST"),  # type: ignore[arg-type]  # of a later release
    ],
)  # fmt: skip
async def test_what_cannot_be_done_has_a_status_and_changes_nothing(
    start: Start, method: str, request_: Any, code: str, reason: str
) -> None:
    running, admin = await begin(start, source=FakeSource("none", "routing", "moe", broken=("moe",)))
    error = await refused(getattr(admin, method)(request_))
    assert (error.code().name, failure_of_error(error).reason) == (code, reason)
    assert running.app.models.default == "none"
    assert await answered_by(running) == OLD


async def test_the_log_level_follows_at_once(start: Start) -> None:
    _, admin = await begin(start)
    lines = io.StringIO()
    configure(level="INFO", fmt="json", stream=lines)
    log = structlog.get_logger("any")
    log.debug("before")
    assert (
        await admin.SetLogLevel(Level(level=admin_pb2.LOG_LEVEL_DEBUG))
    ).previous_level == admin_pb2.LOG_LEVEL_INFO
    log.debug("after")
    assert (
        await admin.SetLogLevel(Level(level=admin_pb2.LOG_LEVEL_ERROR))
    ).previous_level == admin_pb2.LOG_LEVEL_DEBUG
    log.info("silent")
    events = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
    assert "after" in events
    assert not {"before", "silent"} & set(events)


async def test_with_a_file_of_tokens_each_call_brings_one(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n")
    running, admin = await begin(start, admin_token_file=path)
    for metadata in ((), (("authorization", f"Bearer {TOKEN}x"),), (("authorization", TOKEN),)):
        error = await refused(admin.SetDefaultModel(Default(model="routing"), metadata=metadata))
        assert (error.code().name, failure_of_error(error).reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert running.app.models.default == "none"
    labels = {"grpc_type": "unary", "grpc_service": "stratified.v1.AdminService"}
    labels["grpc_method"] = "SetDefaultModel"
    await counted(running, 3, **labels, grpc_code="UNAUTHENTICATED")
    good = (("authorization", f"Bearer {TOKEN}"),)
    await admin.SetDefaultModel(Default(model="routing"), metadata=good)
    assert running.app.models.default == "routing"
    assert await answered_by(running) == OLD, "the port of the service asks for nothing"


async def test_the_token_file_is_followed(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n")
    now = [0.0]
    app = App(
        settings(watch_seconds=0, admin_port=0, admin_token_file=path),
        registry=CollectorRegistry(),
        clock=lambda: now[0],
        source=FakeSource(),
    )
    ports = await app.listen()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.admin}") as channel:
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        request = Level(level=admin_pb2.LOG_LEVEL_ERROR)
        old, new = ((("authorization", f"Bearer {token}"),) for token in (TOKEN, TOKEN[::-1]))
        await admin.SetLogLevel(request, metadata=old)
        path.write_text(f"{TOKEN[::-1]}\n")
        now[0] += 5
        await admin.SetLogLevel(request, metadata=new)
        assert (await refused(admin.SetLogLevel(request, metadata=old))).code().name == "UNAUTHENTICATED"
        path.unlink()
        now[0] += 5
        assert (await refused(admin.SetLogLevel(request, metadata=new))).code().name == "UNAUTHENTICATED"
    await app.stop(settle=0)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"admin_host": "0.0.0.0"}, r"--admin-host '0.0.0.0' is reached by others.*set --admin-token-file"),
        ({"admin_host": "admin.example"}, r"--admin-host 'admin.example' is reached by others"),
        (
            {"admin_token_file": Path("/nowhere/tokens")},
            r"--admin-token-file '/nowhere/tokens': No such file",
        ),
    ],
)
async def test_a_port_that_would_be_open_to_anyone_is_not_bound(values: dict[str, Any], text: str) -> None:
    app = App(settings(admin_port=0, **values), registry=CollectorRegistry(), source=FakeSource())
    with pytest.raises(BadSettings, match=text):
        await app.listen()
    await app.stop(settle=0)


async def test_every_series_of_the_admin_calls_exists_from_the_start(start: Start) -> None:
    running, _ = await begin(start)
    for method in ("LoadModel", "UnloadModel", "SetDefaultModel", "SetLogLevel"):
        labels = {"grpc_type": "unary", "grpc_service": "stratified.v1.AdminService", "grpc_method": method}
        assert running.sample("grpc_server_handled_total", **labels, grpc_code="OK") == 0
    assert running.sample("stratified_model_swaps_total", outcome="missing") == 0


async def test_an_admin_port_in_use_names_its_flag(start: Start) -> None:
    running, _ = await begin(start)
    taken = settings(admin_port=running.ports.admin)
    app = App(taken, registry=CollectorRegistry(), source=FakeSource())
    with pytest.raises(PortInUse, match="--admin-port"):
        await app.listen()
    await app.stop(settle=0)
