"""What reading a session costs, and making its secrets, in milliseconds of this machine.

    make bench        or        .venv/bin/python bench/language.py [--rounds 30]

  typical     parse, check and hash a policy of 60 lines                        at most 5 ms
  large       the same for a text of 1 MiB, the largest allowed                 at most 2000 ms
  mistaken    a text of 1 MiB that has nothing but mistakes                     at most 2000 ms
  hostile     the dearest text of 1 MiB that we know, of directives alone       at most 2000 ms
  secrets     generate 1,000 ascii and binary secrets                           at most 50 ms
  certificate generate a P-256 certificate; its key is there already            at most 3 ms

Each figure is the best of the rounds, and the median beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from ostiary.errors import InputError
from ostiary.secret import generate, generate_private_key, issue_certificate
from ostiary.session import AsciiSecret, BinarySecret, Session, X509Secret, parse_session
from ostiary.session.document import MAX_DOCUMENT_BYTES

SERVICES = 600
NORMAL_FORM_BYTES = 60
"""What the normal form of a service here is longer than its text."""
DIGEST = "e0e81528f05b076dd1b0720bacdec52feb7d4ff6faf6425eb5f93f4fe743a220"

TYPICAL = f"""name: shop/web
version: "0.3.11"
predecessor: ~

access_policy:
  read: [CREATOR]
  update:
    - CREATOR
    - require-at-least-1:
        - signer: MV3se6FuJ4oST18KpRhQMG9Hzk6gKCUbF2EhGQrEjLsoPpDRma
        - signer: MqGVR786CZmPNsYpaM9pCtdbELzPzbeKG6BRddZBeBpnKyf4Wq

security:
  attestation:
    tolerate: [hyperthreading, outdated-tcb]
    ignore_advisories: [INTEL-SA-00615, INTEL-SA-00657]

secrets:
  - name: ca
    import: {{session: ../pki, secret: ca}}
  - name: web_key
    kind: private-key
    migrate: true
  - name: web
    kind: x509
    private_key: web_key
    endpoint: server
    san: ["dns:shop.example.com", "ip:192.0.2.1"]
    valid_for: 90 days
  - name: password
    kind: ascii
    size: 32
    export: {{session: ../database}}

volumes:
  - name: data

images:
  - name: web
    volumes:
      - {{name: data, path: /data}}
    injection_files:
      - path: /etc/web/tls.pem
        permission: 0o400
        content: |
          $$SCONE::web:privatekey$$$$SCONE::web:crt$$
      - path: /etc/web/config.json
        content: '{{"password": "$$SCONE::password|escape(json)$$"}}'

services:
  - name: web
    image_name: web
    command: web-server --port 443 "--title=The shop"
    pwd: /srv
    environment:
      DATABASE: database.example.com
      LOG_LEVEL: info
      PORT: 5432
    attestation:
      - mrenclave: [{DIGEST}]
"""


def large() -> str:
    """1 MiB, of 600 services and a file with placeholders; also its normal form is no larger."""
    service = (
        "- {{name: s{n}, image_name: web, command: server --port {n}, attestation: {{mrenclave: " + DIGEST + "}}}}\n"
    )
    services = "services:\n" + "".join(service.format(n=number) for number in range(SERVICES))
    head = f"name: large\nversion: '0.3.11'\nsecrets: [{{name: s, kind: ascii}}]\n{services}images:\n- name: web\n"
    head += "  injection_files:\n  - path: /f\n    content: |\n"
    line = "      a = $$SCONE::s$$ and some more\n"
    return head + line * ((MAX_DOCUMENT_BYTES - SERVICES * NORMAL_FORM_BYTES - len(head)) // len(line))


def mistaken() -> str:
    """1 MiB of placeholders whose secrets do not exist, each of another name."""
    names = "".join(f"- {{name: secret{number}, kind: ascii}}\n" for number in range(1000))
    files = "images:\n- name: i\n  injection_files:\n  - path: /f\n    content: "
    head = f"name: wrong\nversion: '0.3.11'\nsecrets:\n{names}{files}"
    return head + " ".join(f"$$SCONE::secrex{number:06}$$" for number in range((MAX_DOCUMENT_BYTES - len(head)) // 25))


def refuse(text: str) -> None:
    try:
        parse_session(text)
    except InputError:
        return
    raise RuntimeError("the text was accepted")


def make_secrets() -> None:
    kinds = (AsciiSecret, BinarySecret)
    secrets = tuple(kinds[number % 2](name=f"s{number}") for number in range(1000))
    session = Session(version="0.3", name="bench", secrets=secrets)
    generate(session, previous={}, previous_session=None, random=os.urandom, now=datetime.now(UTC))


def certificate_maker() -> Callable[[], object]:
    key = generate_private_key("P-256")
    secret = X509Secret(name="web", endpoint="server", dns=("web.example.com",))
    return partial(issue_certificate, secret, key=key, issuer=None, random=os.urandom, now=datetime.now(UTC))


def measure(name: str, action: Callable[[], object], rounds: int, budget_ms: float) -> bool:
    """Print a line; whether the best round is within the budget."""
    action()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append((time.perf_counter() - started) * 1000)
    best = min(times)
    print(f"{name:<12} {best:9.2f} ms   median {statistics.median(times):9.2f} ms   budget {budget_ms:6.0f} ms")
    return best <= budget_ms


def main() -> int:
    parser = argparse.ArgumentParser(description="What reading a session and making its secrets costs.")
    parser.add_argument("--rounds", type=int, default=30, help="of the short ones; the long ones take a tenth")
    rounds = parser.parse_args().rounds
    slow = max(1, rounds // 10)
    within = (
        measure("typical", partial(parse_session, TYPICAL), rounds, 5),
        measure("large", partial(parse_session, large()), slow, 2000),
        measure("mistaken", partial(refuse, mistaken()), slow, 2000),
        measure("hostile", partial(refuse, "%A 1\n" * (MAX_DOCUMENT_BYTES // 5)), slow, 2000),
        measure("secrets", make_secrets, rounds, 50),
        measure("certificate", certificate_maker(), rounds, 3),
    )
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
