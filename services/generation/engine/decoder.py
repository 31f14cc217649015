"""The model's side of sampling: prefill contexts into slots, then one token for every row at once.

    prefill(slots)   all tokens of a row but its last, into the cache; equal contexts are computed once
    step()           feeds every row's last token, draws the next one

A row's first token is drawn by an ordinary step, so a prefill needs no logits.

Axes: N rows, R rows of a prefill, T positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from services.generation.engine import attention
from services.generation.engine.batch import Batch
from services.generation.engine.heat import Heat
from services.generation.engine.sampler import draw, restrict, uniform
from services.generation.engine.slots import SlotCache

PREFILL_TOKENS = 16_384
"""Most tokens, padding included, of one prefill forward."""
ATTENTION = ("full_attention", "sliding_attention")


class Decoder:
    """Drives one causal language model over the rows of a batch."""

    def __init__(self, model: torch.nn.Module, batch: Batch, heat: Heat | None = None) -> None:
        self.model, self.batch, self.heat = model, batch, heat
        config = model.config.get_text_config()
        self.device = next(model.parameters()).device
        self.additive_mask = config._attn_implementation in ("eager", attention.NAME)
        self.layer_types = set(getattr(config, "layer_types", None) or ())
        refused = self.layer_types.difference(ATTENTION)
        if refused:
            raise UserError(f"model has layers of type {sorted(refused)}; accepted by this engine: {ATTENTION}")
        self.window = getattr(config, "sliding_window", None)
        self.cache = SlotCache(config.num_hidden_layers, batch.slots, batch.max_len)
        self.is_eos_V = torch.from_numpy(batch.is_eos_V).to(self.device)

    def prefill(self, slots: Sequence[int]) -> None:
        """Fill the cache of these slots with all their tokens but the last."""
        contexts: dict[tuple[int, ...], list[int]] = {}
        for slot in slots:
            tokens = self.batch.context(slot, int(self.batch.length_S[slot]) - 1)
            if tokens:
                contexts.setdefault(tokens, []).append(slot)
        ordered = sorted(contexts, key=len)
        while ordered:
            take = max(1, min(len(ordered), PREFILL_TOKENS // len(ordered[-1])))
            part, ordered = ordered[-take:], ordered[:-take]
            self._prefill(part, [contexts[tokens] for tokens in part])

    def step(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw one token for every row: (tokens, log-probs, temperatures). There must be no holes."""
        batch, n = self.batch, self.batch.n
        position_N = batch.length_S[:n] - 1
        logits_NV = self._forward(batch.tokens_ST[np.arange(n), position_N], position_N)
        drawn_at_N = batch.temperature_S[:n]
        if self.heat is not None:
            drawn_at_N = self.heat.temperatures(logits_NV, drawn_at_N, batch.trains_S[:n])
        temperature_N = torch.from_numpy(drawn_at_N).to(self.device)
        index_N = batch.length_S[:n] - batch.start_S[:n]
        uniform_N = torch.from_numpy(uniform(batch.seed_S[:n], index_N)).to(self.device)
        if batch.special_S[:n].any():
            logits_NV = self._specials(logits_NV, temperature_N, index_N)
        token_N, logprob_N = draw(logits_NV, temperature_N, uniform_N)
        return token_N.cpu().numpy(), logprob_N.cpu().numpy(), drawn_at_N

    def compact(self) -> None:
        """Close the holes that ended rows left."""
        sources, targets = self.batch.compact()
        if targets:
            self.cache.move(sources, targets, int(self.batch.length_S[targets].max()))

    def _prefill(self, contexts: Sequence[tuple[int, ...]], slots: Sequence[list[int]]) -> None:
        plan = self.cache.plan
        ids_RT = np.zeros((len(contexts), max(map(len, contexts))), dtype=np.int64)
        for row, tokens in enumerate(contexts):
            ids_RT[row, : len(tokens)] = tokens
        plan.prefill = True
        plan.slot_R = self._to(np.array([slot for group in slots for slot in group]))
        plan.source_R = self._to(np.repeat(np.arange(len(contexts)), [len(group) for group in slots]))
        position_1T = torch.arange(ids_RT.shape[1], device=self.device)[None]
        self.model.base_model(
            input_ids=self._to(ids_RT),
            position_ids=position_1T.expand(ids_RT.shape),
            past_key_values=self.cache,
            use_cache=True,
        )

    def _forward(self, token_N: np.ndarray, position_N: np.ndarray) -> Tensor:
        plan = self.cache.plan
        plan.prefill = False
        plan.position_N = self._to(position_N)
        plan.width = int(position_N.max()) + 1
        for layer in self.cache.layers:
            layer.reserve(plan.width)
        return self.model(
            input_ids=self._to(token_N)[:, None],
            position_ids=plan.position_N[:, None],
            attention_mask=self._mask(plan.position_N, plan.width),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def _mask(self, position_N: Tensor, width: int) -> Tensor | dict[str, Tensor]:
        """What each row sees: positions up to its own; with a sliding window, only the last ones."""
        key_T = torch.arange(width, device=self.device)
        sees_NT = key_T <= position_N[:, None]
        if self.window is None:
            return self._shaped(sees_NT)
        near_NT = sees_NT & (key_T > position_N[:, None] - self.window)
        if self.layer_types:
            return {"full_attention": self._shaped(sees_NT), "sliding_attention": self._shaped(near_NT)}
        return self._shaped(near_NT)

    def _shaped(self, sees_NT: Tensor) -> Tensor:
        if not self.additive_mask:
            return sees_NT[:, None, None]
        dtype = self.model.dtype
        zero = torch.zeros((), dtype=dtype, device=self.device)
        return torch.where(sees_NT, zero, torch.finfo(dtype).min)[:, None, None]

    def _specials(self, logits_NV: Tensor, temperature_N: Tensor, index_N: np.ndarray) -> Tensor:
        """Rows with minimum lengths or a restricted vocabulary (evaluation only)."""
        batch = self.batch
        slot_M = np.flatnonzero(batch.special_S[: batch.n])
        rows_M = self._to(slot_M)
        logits_MV = logits_NV[rows_M].float()
        early_M = self._to(index_N[slot_M] < batch.min_tokens_S[slot_M])
        logits_MV = logits_MV.masked_fill(early_M[:, None] & self.is_eos_V, float("-inf"))
        settings = [self._to(array[slot_M]) for array in (batch.top_k_S, batch.top_p_S, batch.min_p_S)]
        return logits_NV.float().index_copy(0, rows_M, restrict(logits_MV, temperature_N[rows_M], *settings))

    def _to(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
