"""A small language model, built on the spot: Qwen2 architecture, random weights, one token per printable character.

The newcomer's run needs a model that no network has to deliver and that two cores train in minutes. What is built is an
ordinary Hugging Face folder: `AutoModelForCausalLM`, `AutoTokenizer` and vLLM load it like any other.

Its chat template writes each message as its bare text. The beginning-of-sequence token stands between the user's text
and the answer, so generation starts right after it, and the end-of-sequence token ends the answer:

    level<bos>level<eos>

Characters outside printable ASCII, line breaks too, have no token and are left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
CHARACTERS = "".join(chr(code) for code in range(32, 127))
"""Printable ASCII, 95 characters; with the three special tokens 98 token ids."""

_BYTE_LEVEL_SPACE = "\u0120"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] }}{{ ' ' }}"
    "{% else %}{{ message['content'] }}{{ bos_token }}{% endif %}"
    "{% endfor %}"
)


@dataclass(frozen=True)
class TinyModel:
    """Shape of the model.

    `layers`: decoder layers. `hidden`: width, a multiple of `heads`. `heads`: query heads. `kv_heads`: key and value
    heads, a divisor of `heads`. `intermediate`: inner width of the SwiGLU block. `context`: longest sequence, tokens.
    `init_std`: standard deviation of the weights at the start. `seed`: of those weights.

    >>> TinyModel().parameters
    505216
    """

    layers: int = 2
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 512
    context: int = 1024
    init_std: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "seed" and value <= 0:
                raise UserError(f"tiny model: {name} is {value!r}; accepted: more than 0")
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise UserError(f"tiny model: hidden is {self.hidden}; accepted: an even multiple of heads ({self.heads})")
        if self.heads % self.kv_heads:
            raise UserError(f"tiny model: kv_heads is {self.kv_heads}; accepted: a divisor of heads ({self.heads})")

    @property
    def parameters(self) -> int:
        """How many weights it has; the output layer shares the embedding's."""
        head = self.hidden // self.heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * head
        biases = self.hidden + 2 * self.kv_heads * head
        layer = attention + biases + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return (len(CHARACTERS) + 3) * self.hidden + self.layers * layer + self.hidden


def build(folder: str | Path, shape: TinyModel | None = None) -> Path:
    """Write the model and its tokenizer to `folder`, whole or not at all; returns it."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    new_model(shape or TinyModel()).save_pretrained(aside)
    new_tokenizer().save_pretrained(aside)
    return move_into_place(aside, folder)


def move_into_place(aside: Path, folder: Path) -> Path:
    """Rename a finished folder to its name. Where the name is taken already, what is there stays."""
    aside.chmod(0o755)
    try:
        os.rename(aside, folder)
    except OSError:
        shutil.rmtree(aside)
        if not folder.is_dir():
            raise
    return folder


def new_model(shape: TinyModel) -> Qwen2ForCausalLM:
    """A `Qwen2ForCausalLM` with fresh float32 weights, drawn from `shape.seed`; torch's own seed stays."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    ids = _special_ids()
    config = Qwen2Config(
        vocab_size=len(CHARACTERS) + len(ids),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        initializer_range=shape.init_std,
        tie_word_embeddings=True,
        use_sliding_window=False,
        architectures=["Qwen2ForCausalLM"],
        dtype="float32",
        **ids,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_p=1.0, top_k=0, **ids)
    return model


def new_tokenizer() -> Qwen2Tokenizer:
    """A fast tokenizer with one token per printable ASCII character, and the chat template above.

    It is a byte-level `Qwen2Tokenizer` without merges, because `AutoTokenizer` loads every Qwen2 folder as one.
    """
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer(
        vocab={
            token: index for index, token in enumerate((PAD, BOS, EOS, *CHARACTERS.replace(" ", _BYTE_LEVEL_SPACE)))
        },
        merges=[],
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _special_ids() -> dict[str, int]:
    return {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
