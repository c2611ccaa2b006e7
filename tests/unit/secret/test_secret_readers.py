"""Certificates and keys in the hands of Go and GnuTLS."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from ostiary.secret.generate import generate
from ostiary.secret.private_key import KEY_TYPES
from ostiary.secret.render import render
from ostiary.secret.value import Value
from ostiary.session.model import PrivateKeySecret, Secret, Session, X509CaSecret, X509Secret
from ostiary.session.placeholder import parse_template

GO_VERIFIER = """package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// usage: verify DIRECTORY KEY_TYPE... : for each type a leaf with its chain, its key, and the root that signed
func main() {
	for _, name := range os.Args[2:] {
		path := os.Args[1] + "/" + name
		pair, err := tls.LoadX509KeyPair(path+".chain", path+".key")
		if err != nil {
			panic(err)
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		root, err := os.ReadFile(path + ".root")
		if err != nil || !roots.AppendCertsFromPEM(root) {
			panic("no root")
		}
		for _, der := range pair.Certificate[1:] {
			certificate, err := x509.ParseCertificate(der)
			if err != nil {
				panic(err)
			}
			between.AddCert(certificate)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			panic(err)
		}
		for _, host := range []string{"a.example", "x.api.example", "192.0.2.7", "2001:db8::1"} {
			options := x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: host}
			if _, err := leaf.Verify(options); err != nil {
				panic(err)
			}
		}
		other := x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: "b.example"}
		if _, err := leaf.Verify(other); err == nil {
			panic("b.example verifies")
		}
		fmt.Println(name, "OK")
	}
}
"""
SAN = ("a.example", "*.api.example", ip_address("192.0.2.7"), ip_address("2001:db8::1"))


@pytest.fixture(scope="module")
def chains() -> Mapping[str, Value]:
    """For each key type T: T-root <- T-middle <- T-leaf, valid at the time of the test."""
    secrets: list[Secret] = []
    for kind in KEY_TYPES:
        secrets += [
            PrivateKeySecret(name=f"{kind}-key", key_type=kind),
            X509CaSecret(name=f"{kind}-root", private_key=f"{kind}-key"),
            X509CaSecret(name=f"{kind}-middle", private_key=f"{kind}-key", issuer=f"{kind}-root"),
            X509Secret(
                name=f"{kind}-leaf",
                private_key=f"{kind}-key",
                issuer=f"{kind}-middle",
                endpoint="server",
                san=SAN,
                valid_for=timedelta(days=90),
            ),
        ]
    session = Session(version="0.3.12", name="s", secrets=tuple(secrets))
    source = random.Random(11).randbytes
    return generate(session, previous={}, previous_session=None, random=source, now=datetime.now(UTC))


def write(directory: Path, chains: Mapping[str, Value], kind: str) -> None:
    texts = {
        "chain": f"$$SCONE::{kind}-leaf$$$$SCONE::{kind}-leaf:chain$$",
        "key": f"$$SCONE::{kind}-leaf:privatekey$$",
        "root": f"$$SCONE::{kind}-root$$",
    }
    for suffix, text in texts.items():
        (directory / f"{kind}.{suffix}").write_bytes(render(parse_template(text), chains))


def test_go_loads_the_keys_and_verifies_the_chains(tmp_path: Path, chains: Mapping[str, Value]) -> None:
    for kind in KEY_TYPES:
        write(tmp_path, chains, kind)
    program = tmp_path / "verify.go"
    program.write_text(GO_VERIFIER)
    command = ["go", "run", str(program), str(tmp_path), *KEY_TYPES]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{kind} OK" for kind in KEY_TYPES], done.stderr


@pytest.mark.parametrize("kind", KEY_TYPES)
def test_gnutls_verifies_the_chain(tmp_path: Path, chains: Mapping[str, Value], kind: str) -> None:
    write(tmp_path, chains, kind)
    options = ["--verify-hostname", "a.example", "--verify-purpose", "1.3.6.1.5.5.7.3.1"]
    command = ["certtool", "--verify", "--load-ca-certificate", f"{kind}.root", "--infile", f"{kind}.chain"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Chain verification output: Verified. The certificate is trusted." in done.stdout, done.stdout


@pytest.mark.parametrize("kind", KEY_TYPES)
def test_gnutls_reads_the_key(chains: Mapping[str, Value], kind: str) -> None:
    command = ["certtool", "--key-info", "--pkcs8", "--no-text", "--null-password"]
    text = render(parse_template("$$SCONE::key:pkcs8-v1:pem$$"), {"key": chains[f"{kind}-key"]}).decode()
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
