# Verbs only. ARGS='…' is passed on: make transfer-voc-frozen ARGS='--data DIR --trials 3'
# PYTHON chooses the interpreter of .venv (3.11 or 3.12).
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/resim-bench
# One process per GPU: GPUS=8, or all that are here. Of several nodes (NODES=2) each starts the same command, with
# MASTER=HOST:PORT of one of them.
ifndef GPUS
comma := ,
VISIBLE := $(words $(subst $(comma), ,$(CUDA_VISIBLE_DEVICES)))
GPUS := $(firstword $(filter-out 0,$(VISIBLE) $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)) 1)
endif
NODES ?= 1
ALONE = $(if $(filter-out 1,$(NODES)),$(error NODES=$(NODES) needs MASTER=HOST:PORT of one of them),--standalone)
MEET := $(if $(MASTER),--nnodes=$(NODES) --rdzv-backend=c10d --rdzv-endpoint=$(MASTER),$(ALONE))
MANY := $(filter-out 1,$(GPUS) $(NODES))
START := $(if $(MANY),$(BIN)/python -m resim_bench.torchrun $(MEET) --nproc-per-node=$(GPUS) --no-python $(RUN),$(RUN))
JOINED := $(if $(MANY),--launcher pytorch)

.PHONY: help mini mini-study mini-controls photos test certify pin format check tables report regress list data doctor bench
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: $(RUN)
	@$(RUN) --help

mini: $(RUN)
	@$(RUN) mini $(ARGS)

mini-study: $(RUN)
	@$(RUN) study mini $(ARGS)
	@$(RUN) study mini-coco $(ARGS)

mini-controls: $(RUN)
	@$(RUN) study mini-controls $(ARGS)

photos: $(RUN)
	@$(RUN) study photos-cards $(ARGS)
	@$(RUN) study photos-coco $(ARGS)

pretrain-%: $(RUN)
	@$(START) pretrain '$**' --resume $(JOINED) $(ARGS)

transfer-%: $(RUN)
	@$(START) transfer $* --resume $(JOINED) $(ARGS)

tables report list data doctor: $(RUN)
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
