# Everything a newcomer or CI runs. Each target sees to its own set-up.
.PHONY: help setup demo test lint bench lock clean

help:
	@echo "make setup  a virtual environment in .venv with ostiary in it"
	@echo "make demo   watch a session, an attestation and three programs, start to end"
	@echo "make test   all tests, with coverage"
	@echo "make lint   ruff and mypy --strict"
	@echo "make bench  the benchmarks; they print ratios"
	@echo "make lock   pin the newest allowed Python packages, with hashes"

setup:
	@scripts/setup demo

demo:
	@scripts/setup demo
	@.venv/bin/ostiary demo

test:
	@scripts/setup test
	.venv/bin/python -m coverage erase
	.venv/bin/python -m coverage run -m pytest
	.venv/bin/python -m coverage combine --quiet
	.venv/bin/python -m coverage report --fail-under=90

lint:
	@scripts/setup test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench:
	@scripts/setup test
	PYTHONPATH=. .venv/bin/python bench/attested_start.py
	.venv/bin/python bench/language.py
	.venv/bin/python bench/governance.py
	PYTHONPATH=. .venv/bin/python bench/governance_service.py
	PYTHONPATH=. .venv/bin/python bench/store.py
	PYTHONPATH=. .venv/bin/python bench/store.py --only sqlite --only postgresql --flush-ms 1
	PYTHONPATH=. .venv/bin/python bench/evidence.py

lock:
	@scripts/setup test
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-header --group build --extra checker pyproject.toml -o requirements.lock
	.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade --no-header -c requirements.lock --group dev -o requirements-dev.lock

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
