"""Reading `config.json` of each family: sizes and windows are those of `transformers`, other settings are refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from flax import nnx
from safetensors.flax import load_file, save_file
from tokenizers import Tokenizer, models

from icl_theory.errors import InputError
from icl_theory.llm.model.checkpoint import count_parameters, load_decoder, read_folder, save_decoder
from icl_theory.llm.model.config import Rope
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface
from icl_theory.llm.model.pretrained import load_model, save_model

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
GEMMA_4B = {  # as on the hub, where text_config omits what is the default
    "model_type": "gemma3",
    "eos_token_id": [1, 106],
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10_240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"model_type": "siglip_vision_model"},
}
QWEN = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
PUBLISHED = {  # with the number of weights that the hub gives; of Gemma, without the vision tower and its projector
    "Qwen2.5-0.5B": ({"model_type": "qwen2", **QWEN}, 494_032_768),
    "Gemma-3-4B": (GEMMA_4B, 4_300_079_472 - 419_816_304),
}


def described(family):
    return json.loads((GOLDENS / family / "config.json").read_text())


def windowed(layer_types):
    return tuple(kind == "sliding_attention" for kind in layer_types)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_have_the_published_numbers_of_weights(name):
    told, count = PUBLISHED[name]
    config = from_huggingface(told)
    assert count_parameters(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0)))) == count


@pytest.mark.parametrize("text", [GEMMA_4B["text_config"], {}])
def test_what_a_nested_gemma_omits_is_the_default_of_transformers(text):
    ours = from_huggingface(GEMMA_4B | {"text_config": text})
    theirs = transformers.Gemma3TextConfig(**text)
    assert ours.local_layers == windowed(theirs.layer_types)
    full, local = (theirs.rope_parameters[f"{kind}_attention"] for kind in ("full", "sliding"))
    assert ours.rope == Rope(full["rope_theta"], full.get("factor", 1.0))
    assert ours.local_rope == Rope(local["rope_theta"])
    assert ours.window == theirs.sliding_window
    assert ours.query_scale == theirs.query_pre_attn_scalar**-0.5
    assert (ours.num_layers, ours.num_heads, ours.num_kv_heads, ours.head_dim) == (
        theirs.num_hidden_layers,
        theirs.num_attention_heads,
        theirs.num_key_value_heads,
        theirs.head_dim,
    )
    assert (ours.vocab_size, ours.hidden_size, ours.intermediate_size, ours.norm_eps, ours.tied) == (
        theirs.vocab_size,
        theirs.hidden_size,
        theirs.intermediate_size,
        theirs.rms_norm_eps,
        theirs.tie_word_embeddings,
    )


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    "told",
    [
        {"use_sliding_window": False, "sliding_window": 64, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 20},
        {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 2},
        {"use_sliding_window": True},
        {"use_sliding_window": True, "num_hidden_layers": 30},
        {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"] * 12},
    ],
)
def test_the_windows_of_qwen(kind, told):
    ours = from_huggingface({"model_type": kind, **QWEN, **told})
    theirs = transformers.AutoConfig.for_model(kind, **{**QWEN, **told})
    assert [ours.is_local(layer) for layer in range(ours.num_layers)] == list(windowed(theirs.layer_types))
    if any(ours.local_layers):
        assert ours.window == theirs.sliding_window


def test_every_layer_of_mistral_has_the_window_unless_it_is_null():
    told = described("mistral")
    assert from_huggingface(told).local_layers == (True, True)
    assert from_huggingface(told | {"sliding_window": None}).local_layers == ()
    assert from_huggingface({name: told[name] for name in told if name != "sliding_window"}).window == 4096


NEWER = {"language_model.model.": "model.language_model.", "vision": "model.vision", "multi": "model.multi"}


def renamed(folder, change):
    """A copy of the nested Gemma in which names begin otherwise."""
    folder.mkdir()
    (folder / "config.json").write_bytes((GOLDENS / "gemma3" / "config.json").read_bytes())
    tensors = load_file(GOLDENS / "gemma3" / "model.safetensors")
    for old, new in change.items():
        tensors = {new + name.removeprefix(old) if name.startswith(old) else name: tensors[name] for name in tensors}
    save_file(tensors, folder / "model.safetensors")
    return folder


def equal(model, other):
    ours, theirs = (dict(nnx.to_flat_state(nnx.state(each, nnx.Param))) for each in (model, other))
    assert ours.keys() == theirs.keys()
    for path, leaf in theirs.items():
        np.testing.assert_array_equal(ours[path][...], leaf[...])


def test_a_nested_gemma_is_its_text_part(tmp_path):
    """The golden files are of one model; names begin in newer files with another prefix."""
    text = load_decoder(GOLDENS / "gemma3_text")
    for folder in (GOLDENS / "gemma3", renamed(tmp_path / "newer", NEWER)):
        model = load_decoder(folder)
        assert model.config == text.config
        equal(model, text)


@pytest.mark.parametrize("head", ["language_model.lm_head.weight", "lm_head.weight"])
def test_the_output_of_a_nested_gemma_may_differ(tmp_path, head):
    folder = renamed(tmp_path / "untied", {})
    tensors = load_file(folder / "model.safetensors")
    tensors[head] = 2.0 * tensors["language_model.model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert not read_folder(folder)[0].tied
    np.testing.assert_array_equal(load_decoder(folder).head.kernel[...], tensors[head].T)


def test_a_nested_gemma_is_saved_as_a_text_model(tmp_path):
    folder = renamed(tmp_path / "nested", {})
    told = described("gemma3") | {"eos_token_id": [1, 3]}
    (folder / "config.json").write_text(json.dumps(told))
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate("abcd")}, unk_token="a"))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="b").save_pretrained(folder)
    model = load_model(folder)
    assert model.described["max_position_embeddings"] == 256
    save_model(model, model.decoder, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (saved["model_type"], saved["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert saved["eos_token_id"] == [1, 3]
    assert "vision_config" not in saved
    names = load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert names == load_file(GOLDENS / "gemma3_text" / "model.safetensors").keys()
    equal(load_model(tmp_path / "saved").decoder, load_decoder(GOLDENS / "gemma3_text"))
    (tmp_path / "direct").mkdir()
    save_decoder(model.decoder, tmp_path / "direct", told)  # described as a whole
    assert json.loads((tmp_path / "direct" / "config.json").read_text()) == saved


def test_a_joined_matrix_of_the_wrong_size_is_named(tmp_path):
    (tmp_path / "config.json").write_bytes((GOLDENS / "phi3" / "config.json").read_bytes())
    tensors = load_file(GOLDENS / "phi3" / "model.safetensors")
    tensors["model.layers.0.self_attn.qkv_proj.weight"] = tensors["model.layers.0.self_attn.qkv_proj.weight"][:-1]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"qkv_proj\.weight = 'shape \(47, 24\)': .* asks for \(48, 24\)"):
        load_decoder(tmp_path)


SUPPORTED = "supported are llama, mistral, qwen2, qwen3, gemma3, gemma3_text, phi, phi3"


@pytest.mark.parametrize("kind", ["mixtral", "gpt2", "qwen2_moe", "mamba", None, 3, ["llama"], {}])
def test_families_that_are_not_supported(kind):
    with pytest.raises(InputError, match=rf"model_type = .*: {SUPPORTED}$"):
        from_huggingface(described("llama") | {"model_type": kind})
    with pytest.raises(InputError, match=rf"model_type = None: {SUPPORTED}$"):
        from_huggingface({})


@pytest.mark.parametrize(
    ("family", "change", "said"),
    [
        ("llama", {"hidden_act": "relu"}, "only silu is built here"),
        ("llama", {"attention_bias": True}, "only False is built here"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "supported are default, linear and llama3",
        ),
        ("llama", {"num_key_value_heads": 3}, "it must divide num_heads"),
        ("llama", {"hidden_size": None}, "at least 1"),
        ("phi3", {"rope_parameters": {"rope_type": "longrope"}}, "rope_scaling = 'longrope': supported are default"),
        ("phi3", {"rope_parameters": None, "rope_scaling": {"type": "su"}}, "rope_scaling = 'su': supported are"),
        ("phi3", {"sliding_window": "long"}, "window = 'long'"),
        (
            "mistral",
            {"layer_types": ["full_attention"] * 2},
            "layer_types = ['full_attention', 'full_attention']: only",
        ),
        ("mistral", {"sliding_window": 0}, "window = 0: layers with windowed attention need"),
        ("qwen2", {"layer_types": ["linear_attention"] * 2}, "layer_types = 'linear_attention': give one of"),
        ("qwen2", {"layer_types": ["sliding_attention"]}, "local_layers = '1 of them': give 2"),
        ("qwen2", {"layer_types": None, "max_window_layers": "1"}, "a setting is of the wrong kind"),
        ("qwen2", {"use_sliding_window": False}, "window = 0: layers with windowed attention need"),
        ("qwen3", {"attention_bias": True}, "only False is built here"),
        ("gemma3", {"text_config": None}, "a setting is of the wrong kind"),
        ("gemma3", {"text_config": ["hidden_size"]}, "a setting is of the wrong kind"),
        ("gemma3", {"text_config": {"final_logit_softcapping": 30.0}}, "final_logit_softcapping = 30.0: only None"),
    ],
)
def test_settings_that_are_not_supported(family, change, said):
    with pytest.raises(InputError) as error:
        from_huggingface(described(family) | change)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_description_that_lacks_something():
    with pytest.raises(InputError, match="it lacks 'vocab_size'"):
        from_huggingface({name: value for name, value in described("llama").items() if name != "vocab_size"})
    with pytest.raises(InputError, match="it lacks 'text_config'"):
        from_huggingface({"model_type": "gemma3"})
