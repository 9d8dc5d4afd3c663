"""A model folder as small as they come: random weights, a token a letter, and a chat template if wanted."""

import json

import jax.numpy as jnp
from flax import nnx
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from icl_theory.llm.model.checkpoint import save_decoder
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface

SPECIAL = ["<end>", "<user>", "<model>", "<stop>", "<unknown>"]
LETTERS = list("0123456789 abcdefghijklmnopqrstuvwxyz+=?\n")
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% elif m.role == 'assistant' %}"
    "<model>{{ m.content }}<stop>{% else %}{{ raise_exception('no ' + m.role + ' here') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}"
)
DESCRIBED = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": len(SPECIAL) + len(LETTERS),
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": 0,
}


def tiny_tokenizer(*, chat=False):
    vocabulary = {word: place for place, word in enumerate(SPECIAL + LETTERS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    made.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", unk_token="<unknown>")
    if chat:
        tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_tiny_model(folder, *, chat=False):
    model = Decoder(from_huggingface(DESCRIBED), rngs=nnx.Rngs(0), dtype=jnp.float32, param_dtype=jnp.float32)
    folder.mkdir()
    tiny_tokenizer(chat=chat).save_pretrained(folder)
    save_decoder(model, folder, DESCRIBED)
    return folder


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
