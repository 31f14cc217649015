"""vLLM's side of a weight update, loaded inside its worker processes.

vLLM takes new weights through a `WeightTransferEngine` that is registered by name. This one reads a safetensors file
that the engine's process has written to shared memory, so nothing is pickled and every tensor-parallel worker maps the
same bytes. Workers import this module because it holds their `worker_extension_cls`; importing it registers the engine.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from safetensors import safe_open
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "sluice"
EXTENSION = f"{__name__}.WorkerExtension"

# vLLM picks kernels with matrix tiles where the CPU has them and never asks Linux for leave, which a process needs: its
# first step ended with SIGILL (seen with vLLM 0.32 in bfloat16).
torch.cpu._init_amx()


class WorkerExtension:
    """Adds nothing to a worker: naming it makes the worker import this module."""


@dataclass
class InitInfo(WeightTransferInitInfo):
    """Nothing has to be agreed beforehand."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    """`path`: a safetensors file with the whole policy, names as in the checkpoint."""

    path: str


class FileWeightTransfer(WeightTransferEngine[InitInfo, UpdateInfo]):
    """Loads a policy from a file through the model's own loader, layer by layer."""

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Nothing to connect to."""

    def start_weight_update(self) -> None:
        """Give layers their loading form back: some were repacked for their kernels."""
        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, object]) -> None:
        """As the base class does, but waits for the device only where there is one."""
        self.receive_weights(self.parse_update_info(update_info))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load every tensor of the file."""
        with safe_open(update_info.path, framework="pt") as file:
            self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def finish_weight_update(self) -> None:
        """Repack what the kernels want repacked, output layers tied to the embedding too.

        A tied output layer has no tensor of its own in the file, so the layerwise reload passes it by; on a CPU it
        holds a repacked copy of the embedding, which would stay that of the old policy.
        """
        finalize_layerwise_reload(self.model, self.model_config)
        for layer in self.model.modules():
            if isinstance(layer, ParallelLMHead) and isinstance(layer.quant_method, UnquantizedEmbeddingMethod):
                layer.quant_method.process_weights_after_loading(layer)

    def shutdown(self) -> None:
        """Nothing is held."""


# It warns at every update of layers without tensors of their own (rotary tables, tied output layers); that no tensor is
# missing was checked before the pause.
logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
WeightTransferEngineFactory.register_engine(BACKEND, FileWeightTransfer)
