"""Flags over variables over defaults, and one line for what cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.errors import BadSettings
from serving.rpc.options import SecurityFiles
from serving.settings import PREFIX, Settings, parse_settings, read_settings
from serving.types import Truncation


def parse(*argv: str, **environment: str) -> Settings:
    return parse_settings(argv, environment, prog="serve", description="text")


def test_a_flag_wins_over_its_variable() -> None:
    found = parse("--models", "a", "--port", "7", STRATIFIED_PORT="8", STRATIFIED_MAX_ITEMS="9")
    assert (found.models, found.port, found.max_items) == (Path("a"), 7, 9)


def test_every_setting_has_a_flag_a_variable_and_a_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert PREFIX + name.upper() in text
        assert field.description


@pytest.mark.parametrize(
    ("argv", "text"),
    [((), "--models is missing: .*; give it, or set STRATIFIED_MODELS"),
     (("--models", "a", "--port", "70000"), "--port '70000': input should be less than or equal to 65535"),
     (("--models", "a", "--max-items", "many"), "--max-items 'many': .*valid integer"),
     (("--models", "a", "--truncation", "MIDDLE"), "--truncation 'MIDDLE': .*'HEAD', 'TAIL'"),
     (("--models", "a", "--device", "tpu"), "--device 'tpu'")],
)  # fmt: skip
def test_a_bad_value_is_one_line_with_value_rule_and_cure(argv: tuple[str, ...], text: str) -> None:
    with pytest.raises(BadSettings, match=text) as caught:
        parse(*argv)
    assert "\n" not in str(caught.value)


def test_a_bad_variable_is_named_too() -> None:
    with pytest.raises(BadSettings, match="correct it, or STRATIFIED_QUEUE_TOKENS"):
        parse("--models", "a", STRATIFIED_QUEUE_TOKENS="-1")


def test_an_unknown_flag_ends_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--models", "a", "--modle", "b")
    assert caught.value.code == 2
    assert "--modle" in capsys.readouterr().err


def test_booleans_are_switches_and_words() -> None:
    assert parse("--models", "a", "--strict-domain").strict_domain
    assert not parse("--models", "a", "--no-strict-domain", STRATIFIED_STRICT_DOMAIN="true").strict_domain
    assert parse("--models", "a", STRATIFIED_STRICT_DOMAIN="1").strict_domain


def test_limits_policy_and_options_carry_the_settings() -> None:
    found = parse(
        "--models",
        "a",
        "--max-items",
        "5",
        "--truncation",
        "TAIL",
        "--queue-tokens",
        "99",
        "--keepalive",
        "9",
    )
    assert (found.limits.max_items, found.limits.truncation, found.limits.max_queued_tokens) == (
        5,
        Truncation.TAIL,
        99,
    )
    measured = {"measured_batch_tokens": 77, "measured_padding_tokens": 9}
    policy = found.policy(**measured)
    assert (policy.batch_tokens, policy.padding_tokens) == (77, 9)
    policy = parse("--models", "a", "--batch-tokens", "5", "--padding-tokens", "3").policy(**measured)
    assert (policy.batch_tokens, policy.padding_tokens) == (5, 3)
    assert ("grpc.keepalive_time_ms", 9000) in found.server_options.channel_arguments()


def test_settings_are_frozen_and_refuse_unknown_keys() -> None:
    name = "port"
    with pytest.raises(ValueError, match="frozen"):
        setattr(parse("--models", "a"), name, 5)
    with pytest.raises(ValueError, match="extra"):
        Settings.model_validate({"models": "a", "nonsense": 1})


def test_files_of_certificates_and_tokens() -> None:
    settings = read_settings(
        {"models": "m", "tls_cert": "c.pem", "tls_key": "c.key"},
        {"STRATIFIED_TLS_CLIENT_CA": "", "STRATIFIED_TOKEN_FILE": "tokens"},
    )
    assert settings.security == SecurityFiles(Path("c.pem"), Path("c.key"), None, Path("tokens"))


def test_files_of_the_operators_port_have_their_own_flags() -> None:
    settings = read_settings({"models": "m", "admin_tls_cert": "c", "admin_tls_key": "k"}, {})
    files = settings.admin_security
    assert (files.cert, files.key, files.client_ca, files.tokens) == (Path("c"), Path("k"), None, None)
    assert files.flag("tls-cert") == "--admin-tls-cert"


def test_half_of_a_canary_is_one_line() -> None:
    with pytest.raises(BadSettings, match="--canary-model 'moe' is given without --canary-percent"):
        parse("--models", "a", "--canary-model", "moe")


def test_workers_and_connections_reach_their_owners() -> None:
    found = parse("--models", "a", "--workers", "3", "--max-connections", "9")
    assert found.policy(measured_batch_tokens=77, measured_padding_tokens=9).workers == 3
    assert ("grpc.max_allowed_incoming_connections", 9) in found.server_options.channel_arguments()
    plain = dict(parse("--models", "a").server_options.channel_arguments())
    assert "grpc.max_allowed_incoming_connections" not in plain
