"""Pairs that work, and a line for each way in which one does not."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from serving.certificates import IdentityFiles, read_authorities
from serving.errors import BadSettings
from tests.serving.certs import PAST, Files, issue, trust


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def problem(files: Files) -> str:
    with pytest.raises(BadSettings) as caught:
        IdentityFiles(files.chain, files.key).read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_pair_comes_with_its_end(tmp_path: Path, authority: trustme.CA) -> None:
    ends = datetime(2199, 1, 1, tzinfo=UTC)
    files = issue(tmp_path, authority, ends=ends)
    identity = IdentityFiles(files.chain, files.key).read()
    assert (identity.chain, identity.key) == (files.chain.read_bytes(), files.key.read_bytes())
    assert identity.expires == ends.timestamp()
    assert "PRIVATE" not in repr(identity)


def test_a_chain_with_an_intermediate_authority(tmp_path: Path, authority: trustme.CA) -> None:
    files = issue(tmp_path, authority.create_child_ca())
    assert files.chain.read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert IdentityFiles(files.chain, files.key).read().expires > 0


def test_an_expired_certificate_is_named_with_its_date(tmp_path: Path, authority: trustme.CA) -> None:
    files = issue(tmp_path, authority, begins=PAST[0], ends=PAST[1])
    assert problem(files) == (
        f"--tls-cert {str(files.chain)!r} expired on 2020-01-01 00:00 UTC; renew the certificate"
    )


def test_a_certificate_of_tomorrow(tmp_path: Path, authority: trustme.CA) -> None:
    files = issue(tmp_path, authority)
    with pytest.raises(BadSettings, match=r"is not valid before 2000-01-01 00:00 UTC; wait, or correct"):
        IdentityFiles(files.chain, files.key).read(now=lambda: 0.0)


def test_a_key_of_another_certificate(tmp_path: Path, authority: trustme.CA) -> None:
    files, other = issue(tmp_path, authority), issue(tmp_path, authority, stem="other")
    assert "other.key' does not belong to --tls-cert" in problem(Files(files.chain, other.key))


def test_an_encrypted_key_asks_no_terminal(tmp_path: Path, authority: trustme.CA) -> None:
    files = issue(tmp_path, authority)
    files.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    assert "is encrypted; give the key without a passphrase" in problem(files)


@pytest.mark.parametrize("content", [b"", b"no pem", b"\xff\xfe"])
def test_files_of_something_else(tmp_path: Path, authority: trustme.CA, content: bytes) -> None:
    files = issue(tmp_path, authority)
    junk = tmp_path / "junk"
    junk.write_bytes(content)
    assert "--tls-cert" in problem(Files(junk, files.key))
    assert "holds no certificate; give a PEM file" in problem(Files(junk, files.key))
    assert "is no private key that TLS can use" in problem(Files(files.chain, junk))


def test_a_missing_file_is_named(tmp_path: Path, authority: trustme.CA) -> None:
    files = issue(tmp_path, authority)
    assert "--tls-key" in problem(Files(files.chain, tmp_path / "none"))
    assert "No such file or directory" in problem(Files(tmp_path / "none", files.key))


def test_a_certificate_for_clients_alone_serves_no_server(tmp_path: Path) -> None:
    key, chain = tmp_path / "c.key", tmp_path / "c.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=a -addext extendedKeyUsage=clientAuth"
    )
    made = [*command.split(), "-keyout", str(key), "-out", str(chain)]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs the program openssl")
    assert "does not work as a server's certificate: " in problem(Files(chain, key))
    client = IdentityFiles(chain, key, role="client", flags=("--cert", "--key"))
    assert client.read().expires > 0


def test_authorities(tmp_path: Path, authority: trustme.CA) -> None:
    path = trust(tmp_path, authority)
    assert read_authorities(path, flag="--ca") == path.read_bytes()
    with pytest.raises(BadSettings, match=r"--ca '.*ca.pem' expired on .* UTC; give a current authority"):
        read_authorities(path, flag="--ca", now=lambda: 1e12)
    path.write_text("nothing")
    with pytest.raises(BadSettings, match=r"--ca '.*' holds no certificate"):
        read_authorities(path, flag="--ca")
