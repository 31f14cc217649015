"""The model built on the spot is an ordinary Hugging Face folder."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import UserError
from services.learning.tiny import CHARACTERS, TinyModel, build


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_it_loads_with_the_auto_classes_and_has_the_promised_size(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == TinyModel().parameters == 505_216
    assert model.config.architectures == ["Qwen2ForCausalLM"]
    assert (model.config.pad_token_id, model.generation_config.eos_token_id) == (0, 2)


@pytest.mark.parametrize("shape", [TinyModel(layers=1, hidden=32), TinyModel(heads=2, kv_heads=1, intermediate=64)])
def test_the_count_of_parameters_is_right_for_other_shapes(tmp_path, shape):
    model = AutoModelForCausalLM.from_pretrained(build(tmp_path / "other", shape))
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_every_printable_character_is_one_token_and_comes_back_as_it_was(tokenizer):
    ids = tokenizer(CHARACTERS)["input_ids"]
    assert len(ids) == len(set(ids)) == 95
    assert tokenizer.decode(ids) == CHARACTERS
    assert len(tokenizer) == 98


def test_other_characters_are_left_out(tokenizer):
    assert tokenizer.decode(tokenizer("a\n\tb\u00e9\u4e2dc")["input_ids"]) == "abc"


def test_a_user_message_is_its_text_and_the_answer_begins_right_after_one_token(tokenizer):
    chat = [{"role": "user", "content": "level"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["l", "e", "v", "e", "l", "<bos>"]
    chat = [{"role": "system", "content": "Go"}, *chat, {"role": "assistant", "content": "level"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "Go level<bos>level<eos>"


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_own_seed_alone(folder, tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    again = AutoModelForCausalLM.from_pretrained(build(tmp_path / "again"))
    other = AutoModelForCausalLM.from_pretrained(build(tmp_path / "other", TinyModel(seed=1)))
    first = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
    torch.manual_seed(5)
    build(tmp_path / "third")
    assert torch.equal(torch.rand(1), wanted)


def test_building_where_a_model_is_leaves_it_and_nothing_beside_it(folder):
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert build(folder, TinyModel(seed=9)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [({"hidden": 130}, "hidden is 130"), ({"kv_heads": 3}, "kv_heads is 3"), ({"layers": 0}, "layers is 0")],
)
def test_a_shape_that_cannot_be_is_refused(shape, sentence):
    with pytest.raises(UserError, match=sentence):
        TinyModel(**shape)
