# make dev      start the development server                ARGS="--port 2025"
# make test     run every test                              ARGS="tests/unit -x"
# make lint     ruff, pyright, import rules
# make bench    measure, side by side                       ARGS=...
# make dist     build wheel and source archive, check them
# make sbom     what the image holds, as CycloneDX, in dist/
# make pins     write requirements/ anew (needs uv)         UPGRADE=1
# make clean    remove the environment and caches; data in .waystation/ stays
#
# Each makes what it needs first: the environment in .venv, from pinned and hashed packages, once.
# Wanted on the machine: make, and Python 3.11 to 3.13 with its venv module. uv is used when it is there.

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Many tests wait for processes: one worker more than there are cores keeps all of them busy.
JOBS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)))

.PHONY: help dev test lint bench dist sbom pins clean
help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

dev: $(VENV)/.run
	@exec $(BIN)/waystation dev $(ARGS)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 $(ARGS)

lint: $(VENV)/.dev
	@status=0; \
	$(BIN)/ruff check . || status=1; \
	$(BIN)/ruff format --check . || status=1; \
	$(BIN)/lint-imports || status=1; \
	$(BIN)/hadolint Dockerfile deploy/compose/Dockerfile || status=1; \
	$(BIN)/yamllint --strict --config-file .yamllint.yml examples docker-compose.yml deploy k8s || status=1; \
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python || status=1; \
	exit $$status

bench: $(VENV)/.dev
	@$(BIN)/python -m bench $(ARGS)

dist: $(VENV)/.dev
	@$(BIN)/python release/dist.py $(ARGS)

sbom: $(VENV)/.dev
	@$(BIN)/python release/sbom.py $(ARGS)

$(VENV)/.run: requirements/run.txt pyproject.toml requirements/install.sh
	@sh requirements/install.sh $(VENV) requirements/run.txt
	@touch $@

# The larger set holds the smaller one, so both are up to date afterwards.
$(VENV)/.dev: requirements/dev.txt pyproject.toml requirements/install.sh
	@sh requirements/install.sh $(VENV) requirements/dev.txt
	@touch $(VENV)/.run $@

PIN = uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	--extra embedded --extra agents --extra otel --group build $(if $(UPGRADE),--upgrade)

pins:
	@command -v uv >/dev/null || { echo "make pins needs uv on the PATH" >&2; exit 1; }
	@$(PIN) --group test --group lint --group release --output-file requirements/dev.txt pyproject.toml
	@$(PIN) --constraints requirements/dev.txt --output-file requirements/run.txt pyproject.toml
	@python3 docker/pins.py requirements/dev.txt --only uv > docker/uv.new && mv docker/uv.new docker/uv.txt
	@if grep -n '://' requirements/*.txt docker/*.txt; then echo "an address among the pins" >&2; exit 1; fi

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
	find bench checkpoints graphs server tests -name __pycache__ -type d -prune -exec rm -rf {} +
