"""The autoregressive likelihood of each sampled token.

    logp_t = z_t[y_t] / tau_t - logsumexp(z_t / tau_t),    entropy_t = -sum_v p_v log p_v at the same temperature

with z_t the logits one position before token t and tau_t the temperature of its span, so that the number is comparable
with the engine's. Logits are made only where a token was sampled, and for large vocabularies in chunks that are
computed again in the backward pass, so that memory does not grow with tokens times vocabulary.

Source: design section 5; torch's log-softmax in float32.
Odd case: padding stands on the right, where causal attention cannot see it, so no attention mask is needed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.model import project, states
from services.learning.sharing import padded, pays, shared, supported


@dataclass(frozen=True)
class Token:
    """Logits [0, 0] at temperature 1: logp = -0.693147 for either token, entropy 0.693147."""

    chunk: int = knob(1 << 26, "most logits held at once", unit="logits", ge=1)
    share: bool = knob(True, "read the common context of a group once, where that is cheaper and the model can")
    top: int = knob(100, "how many of the likeliest tokens are given where a part reads them", unit="tokens", ge=1)

    cold: float = knob(0.8, "lower temperature of tempered log-probs, in multiples of the token's own", gt=0)
    hot: float = knob(1.2, "higher temperature of tempered log-probs, in multiples of the token's own", gt=0)

    __post_init__ = check

    provides: ClassVar[frozenset[str]] = frozenset(
        {"entropy", "logits", "hidden", "top", "picked", "tempered", "collision"}
    )

    def __call__(self, model: nn.Module, batch: Batch, wanted: Collection[str] = ()) -> Forward:
        valid_NT = batch.valid_NT
        layout = shared(batch) if self.together(model, batch) else padded(batch)
        hidden_KD = states(model, layout).flatten(0, 1)[layout.place_NT[valid_NT]]
        columns = [hidden_KD, batch.token_NT[valid_NT], batch.temperature_NT[valid_NT]]
        if "picked" in wanted:
            columns.append(batch.signals["pick"][valid_NT])
        signals = {name: _spread(x_K, valid_NT) for name, x_K in self._chunks(model, columns, wanted).items()}
        if "logits" in wanted:
            signals["logits"] = _spread(project(model, hidden_KD).float(), valid_NT)
        if "hidden" in wanted:
            signals["hidden"] = _spread(hidden_KD, valid_NT)
        return Forward(signals.pop("logp"), signals)

    def together(self, model: nn.Module, batch: Batch) -> bool:
        """Whether the rollouts of a group are cheaper to read together: micro-batches then keep groups whole."""
        return self.share and pays(batch, model.config.get_text_config().hidden_size) and supported(model)

    def _chunks(self, model: nn.Module, columns: list[Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        size = max(1, self.chunk // model.get_output_embeddings().weight.shape[0])
        score = partial(_score, model, frozenset(wanted), self.top, (self.cold, self.hot))
        if len(columns[0]) <= size:
            return score(*columns)
        chunks = zip(*(column.split(size) for column in columns), strict=True)
        found = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
        return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def _score(
    model: nn.Module,
    wanted: Collection[str],
    top: int,
    tempers: tuple[float, float],
    hidden_KD: Tensor,
    token_K: Tensor,
    tau_K: Tensor,
    pick_KP: Tensor | None = None,
) -> dict[str, Tensor]:
    """Log-prob of each token, [K], and what is wanted of its distribution."""
    logits_KV = project(model, hidden_KD)
    with torch.autocast(logits_KV.device.type, enabled=False):
        logits_KV = logits_KV if logits_KV.dtype == torch.float64 else logits_KV.float()
        if (tau_K != 1).any():
            logits_KV = logits_KV / tau_K.to(logits_KV.dtype)[:, None]
        if not {"entropy", "top", "picked", "tempered", "collision"} & set(wanted):
            return {"logp": -functional.cross_entropy(logits_KV, token_K, reduction="none")}
        logp_KV = logits_KV.log_softmax(-1)
        found = {"logp": logp_KV.gather(1, token_K[:, None]).squeeze(1)}
        if "entropy" in wanted:
            found["entropy"] = -torch.xlogy(logp_KV.exp(), logp_KV.exp()).sum(-1)
        if "collision" in wanted:
            found["collision"] = logp_KV.exp().square().sum(-1)
        if "tempered" in wanted:
            scored = [(logits_KV / t).log_softmax(-1).gather(1, token_K[:, None]) for t in tempers]
            found["tempered"] = torch.cat(scored, 1)
        if "top" in wanted:
            found["top_logp"], found["top_ids"] = logp_KV.topk(min(top, logp_KV.shape[1]), dim=-1)
        if pick_KP is not None:
            found["picked"] = logp_KV.gather(1, pick_KP)
        return found


def _spread(x_K: Tensor, valid_NT: Tensor) -> Tensor:
    found = x_K.new_zeros((*valid_NT.shape, *x_K.shape[1:]))
    return found.index_put((valid_NT,), x_K) if len(x_K) else found
