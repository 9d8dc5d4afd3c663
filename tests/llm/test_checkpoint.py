"""Checkpoints load again, here and in `transformers`; what is missing, damaged or unknown is named."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.flax import load_file, save_file

from icl_theory.errors import InputError
from icl_theory.llm.model.checkpoint import count_parameters, load_decoder, read_folder, save_decoder
from icl_theory.llm.model.config import DecoderConfig
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.families import from_huggingface
from icl_theory.llm.model.paper_models import PUBLISHED, model_flops

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "phi", "phi3")
TOKENS = jnp.asarray(np.random.default_rng(0).integers(3, 40, (2, 12)))


def described(family):
    return json.loads((GOLDENS / family / "config.json").read_text())


@pytest.fixture
def folder(tmp_path):
    """A copy of a model that may be damaged."""
    shutil.copytree(GOLDENS / "llama", tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_was_read(family, tmp_path):
    model = load_decoder(GOLDENS / family)
    save_decoder(model, tmp_path / "out", described(family))
    theirs, ours = (load_file(path / "model.safetensors") for path in (GOLDENS / family, tmp_path / "out"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name], tensor)
    with pytest.raises(InputError, match="it exists"):
        save_decoder(model, tmp_path / "out", described(family))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("family", [*FAMILIES, "gemma3"])
def test_transformers_loads_what_is_written(family, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = load_decoder(GOLDENS / family)
    grown = jax.tree.map(lambda leaf: leaf * 1.1, nnx.state(model))
    nnx.update(model, grown)
    save_decoder(model, tmp_path, described(family))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor(np.asarray(TOKENS))).logits.numpy()
    np.testing.assert_allclose(model(TOKENS), logits, atol=2e-5 * np.abs(logits).max())


def test_shards_are_read_together(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, inside in parts.items():
        save_file({name: tensors[name] for name in inside}, folder / part)
    index = {"weight_map": {name: part for part, inside in parts.items() for name in inside}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(load_decoder(folder)(TOKENS), load_decoder(GOLDENS / "llama")(TOKENS))
    (folder / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors is missing"):
        load_decoder(folder)


def test_a_whole_file_counts_before_an_index_that_it_outlived(folder):
    stale = {"weight_map": {"model.norm.weight": "gone.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(stale))
    np.testing.assert_array_equal(load_decoder(folder)(TOKENS), load_decoder(GOLDENS / "llama")(TOKENS))


def test_a_tied_matrix_may_be_saved_as_the_output(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(load_decoder(folder)(TOKENS), load_decoder(GOLDENS / "llama")(TOKENS))


def test_another_output_than_the_embedding_is_kept_whatever_the_config_says(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = 2.0 * tensors["model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors")
    model = load_decoder(folder)
    np.testing.assert_allclose(model(TOKENS), 2.0 * load_decoder(GOLDENS / "llama")(TOKENS), rtol=1e-5, atol=1e-6)
    config, said = read_folder(folder)
    assert (config.tied, said["tie_word_embeddings"]) == (False, False)
    save_decoder(model, tmp_path, said)
    np.testing.assert_array_equal(load_decoder(tmp_path)(TOKENS), model(TOKENS))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors")
    assert read_folder(folder)[0].tied


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(folder, value):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].at[0].set(value)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.norm\.weight = 'NaN or infinite"):
        load_decoder(folder)


def test_quantised_weights_are_refused_by_name(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(jnp.float8_e4m3fn)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.norm\.weight = 'F8_E4M3': quantised weights"):
        load_decoder(folder)
    (folder / "config.json").write_text(
        json.dumps(described("llama") | {"quantization_config": {"quant_method": "fp8"}})
    )
    with pytest.raises(InputError, match="quantization_config = 'fp8'"):
        load_decoder(folder)


def test_half_precision_is_near(tmp_path):
    whole = load_decoder(GOLDENS / "qwen3")
    save_decoder(whole, tmp_path, described("qwen3"), dtype=jnp.bfloat16)
    half = load_decoder(tmp_path, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(nnx.state(half, nnx.Param)))
    expected = whole(TOKENS)
    assert half(TOKENS).dtype == jnp.float32
    assert np.abs(half(TOKENS) - expected).max() < 0.1 * np.abs(expected).max()


def test_parameters_are_counted_once():
    stored = load_file(GOLDENS / "gemma3_text" / "model.safetensors")
    stored.pop("lm_head.weight", None)
    assert count_parameters(load_decoder(GOLDENS / "gemma3_text")) == sum(tensor.size for tensor in stored.values())


def test_a_folder_that_is_no_model(folder, tmp_path):
    with pytest.raises(InputError, match=r"no config\.json"):
        load_decoder(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_decoder(folder)
    for changed, said in (
        ([], "it holds no settings"),
        ({"model_type": ["llama"]}, "supported are"),
        (described("llama") | {"rope_parameters": None, "rope_theta": None}, "rope_theta = None"),
        (described("llama") | {"rms_norm_eps": "small"}, "norm_eps = 'small'"),
        (described("llama") | {"head_dim": 7}, "must be pairs"),
    ):
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=said):
            load_decoder(folder)


def test_weights_that_are_missing_or_damaged(folder):
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[:-100], b"", b"x" * 64):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(InputError, match="it is damaged"):
            load_decoder(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load_decoder(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.norm.weight"), "it lacks model.norm.weight and 0 more of"),
        (lambda t: t.update(extra=jnp.zeros(2)), "no place for its tensor extra in a llama model"),
        (lambda t: t.update({"model.norm.weight": jnp.zeros(3)}), "shape (3,)': config.json of"),
        (lambda t: t.update({"model.layers.0.mlp.up_proj.weight": jnp.zeros((24, 40))}), "asks for (40, 24)"),
    ],
)
def test_tensors_that_do_not_fit(folder, change, said):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError) as error:
        load_decoder(folder)
    assert said in str(error.value)


def test_published_shapes_have_the_published_numbers_of_weights():
    """And the FLOPs of a step are those of their matrices and of the pairs of tokens that see each other."""
    known = {
        "Llama-3.2-1B": 1_235_814_400,
        "Qwen3-0.6B": 596_049_920,
        "Gemma-3-1B": 999_885_952,
        "Phi-2": 2_779_683_840,
    }
    assert known.keys() == PUBLISHED.keys()
    for name, count in known.items():
        config = from_huggingface(PUBLISHED[name])
        assert count_parameters(nnx.eval_shape(lambda config=config: Decoder(config, rngs=nnx.Rngs(0)))) == count
    config = DecoderConfig(10, 4, 8, 2, 2, 1, 2, window=3, local_layers=(True, False))
    matrices = 2 * (4 * 4 * 2 + 4 * 2 * 2 + 3 * 4 * 8) + 10 * 4
    pairs = (1 + 2 + 3 + 3 + 3) + (1 + 2 + 3 + 4 + 5)
    assert model_flops(config, 3, 5) == 3 * (6 * matrices * 5 + 12 * 2 * 2 * pairs)
