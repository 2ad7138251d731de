# base -> SFT -> reward model -> PPO, one word each; `make` alone lists them.
# Needs Python >= 3.11 with venv, and make. Everything else goes into $(VENV).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install install-dev demo demo-overoptimise test test-distributed test-trl check sft rm reward ppo eval clean

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

# Demo runs are named after their seed, so that each seed is a run of its own.
DEMO := $(or $(RUN),demo-seed$(or $(SEED),0))
RUN ?= default
ARTIFACTS ?= artifacts

# What every command takes. FORCE=1 trains again; ARGS passes anything else on.
on = $(and $(filter-out 0 no false,$(1)),1)
COMMON = --run '$(1)' --artifacts '$(ARTIFACTS)' $(if $(call on,$(FORCE)),--force)
SEEDED = $(if $(SEED),--seed $(SEED))

help:
	@echo "make demo                 everything, from nothing to the report, on a CPU (SEED=1 for another world)"
	@echo "make demo-overoptimise    PPO against a weak reward model with and without the KL penalty, and the plot"
	@echo "make sft BASE=<hub id or folder> SFT_DATA=<...>     fine-tune on demonstrations"
	@echo "make rm RM_DATA=<...>     train the reward model on rankings (make reward is the same)"
	@echo "make ppo PPO_DATA=<...>   optimise the policy against it"
	@echo "make eval                 judge the models of a run"
	@echo "make install | make test | make test-distributed | make test-trl | make check | make clean"
	@echo "make bench-quick | make bench    time PPO against TRL 1.12's (benchmarks/README.md)"
	@echo "make bench-rankings       reward models from ranked groups against pairs"
	@echo "make bench-learning STORIES=<folder of a model of stories>    what PPO learns, against TRL 1.12's, at equal KL"
	@echo
	@echo "RUN=$(RUN)  which run's models (refs) to read and write     MODEL= REWARD=  start from something else"
	@echo "DATA=  with a single target     RECIPE=tldr-1b  settings of recipes/<name>/     SEED=  FORCE=1"
	@echo "LAUNCH=cpu2|gpu1|nvlink|zero1|zero2|zero3|zero3-offload|<file>  NPROC=<number of processes>  ARTIFACTS=$(ARTIFACTS)"
	@echo 'ARGS="--kl_coef 0.02 ..."  any other setting: rlhf <command> --help'

# --- environment -----------------------------------------------------------------------------------------------------

PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 with venv; install one (Debian, Ubuntu: apt install" \
		"python3-venv) or type make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is older than 3.11, or has no venv; type make PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the tested versions into $(VENV); a minute or two, once"
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) --editable '.[dev,deepspeed]'
	@touch $@

$(VENV)/.installed-deepspeed: $(VENV)/.installed
	$(PIP) --editable '.[deepspeed]'
	@touch $@

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# --- stages ----------------------------------------------------------------------------------------------------------

# Several GPUs: one process on each, unless LAUNCH or NPROC says otherwise. CUDA_VISIBLE_DEVICES is respected.
comma := ,
GPUS = $(if $(filter undefined,$(origin CUDA_VISIBLE_DEVICES)),$(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU'),$\
	$(words $(subst $(comma), ,$(CUDA_VISIBLE_DEVICES))))
SEVERAL_GPUS = $(filter-out 0 1,$(GPUS))
PROCESSES = $(or $(NPROC),$(if $(LAUNCH),,$(SEVERAL_GPUS)))
LAUNCH_NAME = $(or $(LAUNCH),$(if $(filter-out 1,$(PROCESSES)),$(if $(filter-out 0,$(GPUS)),nvlink,cpu2)))
LAUNCH_FILE = $(or $(wildcard $(LAUNCH_NAME)),$(wildcard recipes/accelerate/$(LAUNCH_NAME).yaml),$(LAUNCH_NAME))

install: $(if $(LAUNCH),$(if $(shell grep -s '^distributed_type: *DEEPSPEED' '$(LAUNCH_FILE)'),$(VENV)/.installed-deepspeed))

# $(call stage,name,run,settings): one stage, under accelerate where several processes are wanted.
define stage
$(if $(LAUNCH_NAME),$(BIN)/rlhf check-launch '$(LAUNCH_FILE)' $(PROCESSES))
$(if $(LAUNCH_NAME),$(BIN)/accelerate launch --quiet --config_file '$(LAUNCH_FILE)' \
	$(if $(PROCESSES),--num_processes $(PROCESSES)) recipes/$(1).py,$(BIN)/rlhf $(1)) $(3) \
	$(call COMMON,$(2)) $(SEEDED) $(ARGS)
endef

RECIPE_FOR = $(if $(RECIPE),--config recipes/$(RECIPE)/$(1).yaml)
STAGES_ASKED := $(filter sft rm reward ppo,$(MAKECMDGOALS))
ifneq ($(and $(DATA),$(filter-out 1,$(words $(STAGES_ASKED)))),)
ifneq ($(STAGES_ASKED),)
$(error DATA= serves one stage; with several type SFT_DATA=<demonstrations> RM_DATA=<rankings> PPO_DATA=<prompts>)
endif
endif
DATA_FOR = $(if $(or $(1),$(DATA)),--data '$(or $(1),$(DATA))')

sft: install
	$(call stage,sft,$(RUN),$(call RECIPE_FOR,sft) $(if $(BASE),--base '$(BASE)') $(call DATA_FOR,$(SFT_DATA)))

rm reward: install
	$(call stage,reward,$(RUN),$(call RECIPE_FOR,reward) $(if $(MODEL),--model '$(MODEL)') $(call DATA_FOR,$(RM_DATA)))

ppo: install
	$(call stage,ppo,$(RUN),$(call RECIPE_FOR,ppo) $(if $(MODEL),--model '$(MODEL)') \
		$(if $(REWARD),--reward $(REWARD)) $(call DATA_FOR,$(PPO_DATA)))

eval: install
	$(BIN)/rlhf eval $(call COMMON,$(RUN)) $(ARGS)

# --- the demo: every stage on the miniature world, each a command that can be typed alone ----------------------------

WORLD = $(ARTIFACTS)/runs/$(DEMO)/world
FEEDBACK = $(ARTIFACTS)/runs/$(DEMO)/feedback
DEMO_SEED = $(or $(SEED),0)
demo_stage = $(BIN)/rlhf $(1) --config recipes/demo/$(1).yaml $(call COMMON,$(DEMO)) --seed $(DEMO_SEED)

demo: install
	$(BIN)/rlhf world --folder $(WORLD) --seed $(DEMO_SEED)
	$(call demo_stage,pretrain) --data $(WORLD)/documents.jsonl --tokenizer $(WORLD)/tokenizer
	$(call demo_stage,sft) --data $(WORLD)/demonstrations.jsonl
	$(call demo_stage,sample) --prompts $(WORLD)/rank-prompts.jsonl --output $(FEEDBACK)/samples.jsonl
	$(call demo_stage,label) --samples $(FEEDBACK)/samples.jsonl --output $(FEEDBACK)/rankings.jsonl
	$(call demo_stage,reward) --data $(FEEDBACK)/rankings.jsonl
	$(call demo_stage,ppo) --data $(WORLD)/ppo-prompts.jsonl
	$(BIN)/rlhf eval --config recipes/demo/eval.yaml $(call COMMON,$(DEMO))

# The demo's reward model takes long to be fooled, so a weak one, stopped after 30 steps, is optimised
# twice; nothing differs between the two runs but the KL penalty.
WEAK = $(DEMO)-weak
weak_ppo = $(BIN)/rlhf ppo --config recipes/demo/ppo.yaml $(call COMMON,$(WEAK)-$(1)) --seed $(DEMO_SEED) --max_steps 120 \
	--model $(DEMO)/sft --reward $(WEAK)/reward recipes/demo/judge.py:judge --data $(WORLD)/ppo-prompts.jsonl $(2)

demo-overoptimise: demo
	$(BIN)/rlhf reward --config recipes/demo/reward.yaml $(call COMMON,$(WEAK)) --seed $(DEMO_SEED) --max_steps 30 \
		--model $(DEMO)/sft --data $(FEEDBACK)/rankings.jsonl
	$(call weak_ppo,penalty)
	$(call weak_ppo,kl0,--kl_coef 0)
	$(BIN)/rlhf eval --frontier $(WEAK)-penalty $(WEAK)-kl0 --run '$(WEAK)-kl0' --artifacts '$(ARTIFACTS)'

# --- quality ---------------------------------------------------------------------------------------------------------

PYTEST = $(BIN)/python -m pytest -ra --durations=15 --cov --cov-append --cov-report=
UNIT = not e2e and not distributed and not slow

test: install-dev
	@rm -f .coverage .coverage.*
	$(PYTEST) -m '$(UNIT)' $(ARGS)
	$(PYTEST) -m 'not ($(UNIT)) and not distributed' $(ARGS)
	$(BIN)/coverage report --fail-under=85

# Pairs of processes on the CPU, under DDP and every ZeRO stage.
test-distributed: install-dev
	$(BIN)/python -m pytest -ra --durations=15 -m distributed $(ARGS)

# The ends of our range of TRL, and 1.12, the last that had a PPO of its own: our maths is held against it.
# 1.14 asks for requests without saying so; 1.15 needs Triton, which no CPU build of torch brings.
TRL_OLDEST = .venv-trl-oldest
TRL_VENV ?= .venv-trl112
ON_TRL = tests/ppo tests/ranking tests/stages tests/test_training.py tests/test_models.py tests/test_arguments.py

$(TRL_OLDEST)/.installed: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "installing the oldest TRL of our range into $(TRL_OLDEST); a minute or two, once"
	$(BIN)/python -m venv $(TRL_OLDEST)
	grep -v '^trl==' constraints.txt > $(TRL_OLDEST)/constraints.txt
	$(TRL_OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(TRL_OLDEST)/constraints.txt trl==1.14.0 requests --editable '.[dev,deepspeed]'
	@touch $@

test-trl: install-dev $(TRL_OLDEST)/.installed $(TRL_VENV)/.installed
	$(TRL_OLDEST)/bin/python -m pytest -q $(ON_TRL) $(ARGS)
	$(BIN)/python -m pytest -q $(ON_TRL) $(ARGS)
	$(TRL_VENV)/bin/python -m pytest -q tests/trl112 $(ARGS)

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

# --- benchmarks: a second environment holds the last TRL that had a PPO trainer ----------------------------------------

.PHONY: bench bench-quick bench-learning bench-rankings

COMPARE = $(BIN)/python -m benchmarks.compare --trl-python $(TRL_VENV)/bin/python

$(TRL_VENV)/.installed: constraints.txt | $(VENV)/.installed
	@echo "installing TRL 1.12 into $(TRL_VENV), with our versions of everything else; a minute or two, once"
	$(BIN)/python -m venv $(TRL_VENV)
	grep -v '^trl==' constraints.txt > $(TRL_VENV)/constraints.txt
	$(TRL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint $(TRL_VENV)/constraints.txt trl==1.12.0 peft pytest
	@touch $@

bench-quick: install $(TRL_VENV)/.installed
	$(COMPARE) quick --minutes 12 --contestants trl trl_tuned lean ours_float32 ours

bench: install $(TRL_VENV)/.installed
	$(COMPARE) bench-64 --repeats 3
	$(COMPARE) bench-256 --prompts 256 --repeats 1
	$(BIN)/python -m benchmarks.scaling

bench-rankings: demo
	$(BIN)/python -m benchmarks.rankings
	$(BIN)/python -m benchmarks.overfitting --run '$(DEMO)' --artifacts '$(ARTIFACTS)'
	$(BIN)/python -m benchmarks.noisy_labellers --run '$(DEMO)' --artifacts '$(ARTIFACTS)'

bench-learning: install $(TRL_VENV)/.installed
	$(BIN)/python -m benchmarks.learning --trl-python $(TRL_VENV)/bin/python \
		$(if $(STORIES),--stories '$(STORIES)') $(ARGS)

clean:
	rm -rf $(VENV) $(TRL_VENV) $(TRL_OLDEST) build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "$(ARTIFACTS)/ is kept: it holds your models; delete it yourself, or type rlhf artifacts gc"
