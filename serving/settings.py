"""What the server may be told: each setting is one declaration, read as a flag, as a variable, and as its
help.

`--max-items 64` and `STRATIFIED_MAX_ITEMS=64` say the same; the flag wins. The environment and the arguments
are passed in. A value that cannot work is one line with value, rule and cure, as `BadSettings`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serving.engines.buckets import Bounds
from serving.errors import BadSettings
from serving.plan import Plan
from serving.rpc.options import SecurityFiles, ServerOptions
from serving.scheduler import Policy
from serving.tracing import endpoint_of
from serving.types import Limits, Truncation

PREFIX = "STRATIFIED_"
OptionalFile = Annotated[Path | None, BeforeValidator(lambda value: value or None)]  # an empty variable: none


class Settings(BaseModel):
    """Frozen; unknown keys are refused. Ports: 0 takes any free one."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    models: Path = Field(description="a sweep's results folder, or one bundle")
    model: str = Field(
        "", description="the variant that answers by default; empty: the one that the sweep selected"
    )
    load: str = Field(
        "selected", description="what to load: selected, all, or names with commas; each takes memory"
    )
    model_memory: int = Field(
        0, ge=0, description="most MiB of weights that all loaded models take; more is refused; 0: no bound"
    )
    canary_model: str = Field("", description="variant that answers a share of the calls that name no model")
    canary_percent: float = Field(0.0, ge=0, le=100, description="share of those calls, in percent")
    shadow_model: str = Field(
        "", description="variant that scores a share of the calls too, for the metrics alone; nobody waits"
    )
    shadow_percent: float = Field(0.0, ge=0, le=100, description="share of those calls, in percent")
    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 inside a container"
    )
    port: int = Field(50051, ge=0, le=65535, description="port of the service")
    probe_port: int = Field(50053, ge=0, le=65535, description="port of the health probes")
    metrics_port: int = Field(9464, ge=0, le=65535, description="HTTP port of /metrics")
    watch_seconds: float = Field(
        10.0, ge=0, description="seconds between looks for new bundles on the volume; 0: never look"
    )
    admin_host: str = Field(
        "127.0.0.1", min_length=1, description="address of AdminService; another needs --admin-token-file"
    )
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="port of AdminService, by custom 50052; not given: off"
    )
    admin_token_file: OptionalFile = Field(
        None, description="file of the tokens that AdminService accepts, one a line; read again on change"
    )
    admin_tls_cert: OptionalFile = Field(
        None, description="certificate chain of the admin port, PEM; with --admin-tls-key turns TLS on"
    )
    admin_tls_key: OptionalFile = Field(None, description="its private key, PEM without a passphrase")
    admin_tls_client_ca: OptionalFile = Field(
        None, description="authorities of the operators, PEM: only those with a certificate of theirs get in"
    )
    tls_cert: OptionalFile = Field(
        None, description="certificate chain of the service port, PEM; with --tls-key turns TLS on"
    )
    tls_key: OptionalFile = Field(None, description="its private key, PEM without a passphrase")
    tls_client_ca: OptionalFile = Field(
        None, description="authorities of the clients, PEM: only clients with a certificate of theirs get in"
    )
    token_file: OptionalFile = Field(
        None, description="file of the tokens that callers may bring, one a line; read again on change"
    )
    threads: int = Field(0, ge=0, description="threads of the engine; 0: the cores that the container grants")
    workers: int = Field(
        1, ge=1, le=64, description="threads that call the engine at once, per model; --threads is divided"
    )
    hang_seconds: float = Field(
        30.0, gt=0, description="seconds after which an engine that has not come back counts as hanging"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the engine computes")
    engine: Literal["auto", "torch", "onnx", "openvino"] = Field(
        "auto", description="what computes; auto: the fastest of those that can, measured at the start"
    )
    precision: Literal["fp32", "bf16", "int8"] = Field(
        "fp32",
        description="bf16: where the processor or GPU has it; int8: the quantised file, whose loss of "
        "accuracy its manifest states",
    )
    token_cache: int = Field(8, ge=0, description="most MiB of a model's cache of tokenised texts; 0: none")
    result_cache: int = Field(
        0, ge=0, description="most MiB of a model's cache of outputs, by the hash of a text's tokens; 0: none"
    )
    result_entries: int = Field(100_000, ge=1, description="most outputs in it")
    bucket_count: int = Field(
        12, ge=0, description="most graphs that openvino compiles for single lengths; 0: none"
    )
    bucket_seconds: float = Field(
        8.0, ge=0, description="seconds at the start after which no further one is compiled"
    )
    bucket_memory: int = Field(512, ge=0, description="most MiB that they take")
    batch_tokens: int = Field(
        0, ge=0, description="most tokens of a batch, with padding; 0: measured at warm-up"
    )
    batch_items: int = Field(64, ge=1, description="most texts of a batch")
    padding_tokens: int = Field(
        0, ge=0, description="most padding that one text may bring into a batch; 0: measured at warm-up"
    )
    age_cap: float = Field(
        1.0, ge=0, description="seconds of waiting after which age counts before likeness of length"
    )
    queue_tokens: int = Field(32_768, ge=16, description="most tokens that may wait; more is shed")
    caller_share: float = Field(
        0.5, gt=0, le=1, description="most of the queue that one caller alone may fill, as a share"
    )
    max_items: int = Field(128, ge=1, description="most texts of one BatchClassify")
    max_text_bytes: int = Field(65_536, ge=1, description="most bytes of one text")
    max_message_bytes: int = Field(4 * 1024 * 1024, ge=1024, description="most bytes of one message")
    max_stream_items: int = Field(64, ge=1, description="most texts of one stream in flight")
    max_connections: int = Field(0, ge=0, description="most open connections; 0: as many as there are files")
    max_streams: int = Field(1024, ge=1, description="most calls in flight on one connection")
    max_connection_age: float = Field(300.0, gt=0, description="seconds after which a connection is renewed")
    keepalive: float = Field(60.0, gt=0, description="seconds of silence after which a connection is probed")
    default_deadline: float = Field(30.0, gt=0, description="seconds for a call that brings no deadline")
    truncation: Truncation = Field(
        Truncation.HEAD, description="HEAD, TAIL, HEAD_TAIL or REJECT for too long a text"
    )
    strict_domain: bool = Field(False, description="refuse an unknown domain instead of falling back")
    settle_seconds: float = Field(
        3.0, ge=0, description="on SIGTERM, seconds of answering on while endpoints settle"
    )
    grace_seconds: float = Field(
        20.0, ge=0, description="seconds to finish what was accepted before stopping"
    )
    otlp_endpoint: str = Field(
        "", description="where traces go, as http://host:4317; empty: OTEL_EXPORTER_OTLP_ENDPOINT, else off"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="DEBUG shows every call"
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else json"
    )

    @property
    def limits(self) -> Limits:
        """What a request may ask."""
        return Limits(
            max_items=self.max_items,
            max_text_bytes=self.max_text_bytes,
            max_message_bytes=self.max_message_bytes,
            max_queued_tokens=self.queue_tokens,
            max_stream_items=self.max_stream_items,
            default_deadline=self.default_deadline,
            truncation=self.truncation,
            strict_domain=self.strict_domain,
        )

    @property
    def server_options(self) -> ServerOptions:
        """What a connection may do."""
        return ServerOptions(
            self.max_message_bytes,
            self.max_streams,
            self.max_connection_age,
            self.keepalive,
            self.max_connections,
        )

    @property
    def bounds(self) -> Bounds:
        """What graphs for single lengths may cost."""
        return Bounds(self.bucket_count, self.bucket_seconds, self.bucket_memory * 1024 * 1024)

    @property
    def security(self) -> SecurityFiles:
        """Where certificates and tokens of the service port are."""
        return SecurityFiles(self.tls_cert, self.tls_key, self.tls_client_ca, self.token_file)

    @property
    def admin_security(self) -> SecurityFiles:
        """Where certificates and tokens of the admin port are."""
        return SecurityFiles(
            self.admin_tls_cert,
            self.admin_tls_key,
            self.admin_tls_client_ca,
            self.admin_token_file,
            prefix="--admin-",
        )

    @property
    def traffic(self) -> Plan:
        """Who else answers, or scores along."""
        return Plan(self.canary_model, self.canary_percent, self.shadow_model, self.shadow_percent)

    def policy(self, *, measured_batch_tokens: int, measured_padding_tokens: int) -> Policy:
        """The scheduler's numbers, what was measured where nothing was set."""
        return Policy(
            queue_tokens=self.queue_tokens,
            batch_tokens=self.batch_tokens or measured_batch_tokens,
            padding_tokens=self.padding_tokens or measured_padding_tokens,
            age_cap=self.age_cap,
            batch_items=self.batch_items,
            caller_share=self.caller_share,
            workers=self.workers,
        )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag a setting, with its help, its default and its variable."""
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default: {_plain(field.default) or 'none'}"
        text = f"{field.description} ({default}; {PREFIX}{name.upper()})".replace("%", "%%")
        flag = f"--{name.replace('_', '-')}"
        if field.annotation is bool:
            parser.add_argument(flag, help=text, default=None, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(flag, help=text, default=None, metavar="VALUE")


def read_settings(arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Flags over variables over defaults; raises `BadSettings`."""
    values: dict[str, Any] = {}
    for name in Settings.model_fields:
        flag, variable = arguments.get(name), environment.get(PREFIX + name.upper())
        if flag is not None or variable is not None:
            values[name] = variable if flag is None else flag
    if not values.get("otlp_endpoint"):
        values["otlp_endpoint"] = endpoint_of(environment)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise BadSettings(_one_line(error)) from None
    settings.traffic.check()
    return settings


def parse_settings(
    argv: Sequence[str], environment: Mapping[str, str], *, prog: str, description: str
) -> Settings:
    """From a command line; argparse itself ends the program with 2 for a flag that does not exist."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser)
    return read_settings(vars(parser.parse_args(argv)), environment)


def _plain(value: object) -> str:
    if value is None:
        return ""
    return str(value.value) if isinstance(value, Truncation) else str(value)


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    flag, variable = f"--{name.replace('_', '-')}", PREFIX + name.upper()
    if first["type"] == "missing":
        return f"{flag} is missing: {Settings.model_fields[name].description}; give it, or set {variable}"
    rule = first["msg"][0].lower() + first["msg"][1:]
    return f"{flag} {first['input']!r}: {rule}; correct it, or {variable}"
