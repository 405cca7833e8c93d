# Verbs only. ARGS='…' is passed on: make transfer-voc-frozen ARGS='--data DIR --trials 3'
# PYTHON chooses the interpreter of .venv (3.11 or 3.12).
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/resim-bench

.PHONY: help mini mini-study mini-controls photos test certify pin format check tables regress list data bench
.DEFAULT_GOAL := help

help: $(RUN)
	@$(RUN) --help

mini: $(RUN)
	@$(RUN) mini $(ARGS)

mini-study: $(RUN)
	@$(RUN) study mini $(ARGS)

mini-controls: $(RUN)
	@$(RUN) study mini-controls $(ARGS)

photos: $(RUN)
	@$(RUN) study photos-cards $(ARGS)
	@$(RUN) study photos-coco $(ARGS)

pretrain-%: $(RUN)
	@$(RUN) pretrain '$**' --resume $(ARGS)

transfer-%: $(RUN)
	@$(RUN) transfer $* --resume $(ARGS)

tables list data: $(RUN)
	@$(RUN) $@ $(ARGS)

regress: $(RUN)
	@$(RUN) tables --check $(ARGS)

plan-%: $(RUN)
	@$(RUN) plan $* $(ARGS)

bench: $(RUN)
	@$(RUN) bench all $(ARGS)

test: $(RUN)
	$(BIN)/pytest -n 2 $(ARGS)

certify: $(RUN)
	@$(BIN)/python -m tests.conformance

pin: $(RUN)
	@$(BIN)/python -m tests.pin

format: $(RUN)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: $(RUN)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

# mmdet's imaug pulls opencv-python, which links libGL; the headless build replaces it, so it comes last.
# Build isolation stays on: without it mmcv compiles its operators for 20 minutes.
$(RUN): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip uninstall --quiet --yes opencv-python
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --force-reinstall --no-deps opencv-python-headless
	@touch $(RUN)
