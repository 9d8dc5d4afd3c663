"""Gemma 3 270M itself, against `transformers` on the same file (make_gguf_goldens.py). Skipped where it is not at hand.

The guide icl_theory/llm/GUIDE.md says how to get the file.

    GEMMA3_270M=gemma-3-270m-q4_k_m.gguf python -m pytest tests/llm/test_gemma3_270m.py
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hard_texts import GREEDY, HARD_TEXTS, LONG_TEXT, REPEATED
from safetensors.numpy import load_file

from icl_theory import llm

PLACE = os.environ.get("GEMMA3_270M", "")
pytestmark = pytest.mark.skipif(not PLACE, reason="GEMMA3_270M=<file> names no file")
EVERY = 997  # columns of logits in the golden file


@pytest.fixture(scope="module")
def known():
    with np.load(Path(__file__).parents[1] / "goldens" / "gemma3_270m.npz") as stored:
        return {name: stored[name] for name in stored.files}


@pytest.fixture(scope="module")
def loaded():
    return llm.load(PLACE)


def test_ids(known, loaded):
    ours = [loaded[1].encode(text) for text in HARD_TEXTS]
    assert [len(one) for one in ours] == known["lengths"].tolist()
    assert np.concatenate(ours).tolist() == known["ids"].tolist()
    assert loaded[1].encode(LONG_TEXT * REPEATED) == known["tokens"].tolist()


def test_logits_and_losses_beyond_the_window(known, loaded):
    model, tokens = loaded[0], jnp.asarray(known["tokens"])
    assert len(tokens) > model.config.window + 64
    logits = np.asarray(nnx.jit(lambda model, tokens: model(tokens))(model, tokens[None]))[0]
    scale = np.abs(known["logits"]).max()
    np.testing.assert_allclose(logits[::16, ::EVERY] / scale, known["logits"] / scale, atol=2e-5)
    losses = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits[:-1])), np.asarray(tokens)[1:, None], 1)[:, 0]
    np.testing.assert_allclose(losses, known["losses"], atol=2e-3)


def test_greedy_text(known, loaded):
    model, tokenizer = loaded
    (reply,) = llm.generate(model, [tokenizer.encode(GREEDY)], max_new=24, stop=[tokenizer.eos_token_id])
    assert reply == known["reply"].tolist()


def test_fine_tuning_and_what_it_saves(loaded, tmp_path):
    """The folder holds a model of `transformers`' own shapes, with weights that have moved and the same tokenizer."""
    model, tokenizer = loaded
    rows = [{"prompt": f"{one} + {one} =", "completion": f"{2 * one}"} for one in range(8)]
    prompting = llm.Prompting(tokenizer)
    examples = [prompting.tokenized(row) for row in rows]
    assert all(example.tokens[0] == tokenizer.bos_token_id for example in examples)
    config = llm.FinetuneConfig(num_steps=3, batch_size=4, length=16, learning_rate=1e-4, schedule="constant")
    done = llm.finetune(model, examples, config)
    assert done.losses[-1] < done.losses[0]
    llm.save(done.model, tokenizer, tmp_path / "tuned", source=PLACE)
    weights = load_file(tmp_path / "tuned" / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape == (262_144, 640)
    again, words = llm.load(tmp_path / "tuned")
    assert again.config == model.config
    np.testing.assert_array_equal(again.embedding[...], done.model.embedding[...])
    assert not np.array_equal(again.embedding[...], model.embedding[...])
    assert [words.encode(text) for text in HARD_TEXTS] == [tokenizer.encode(text) for text in HARD_TEXTS]


def test_time_and_memory_of_loading():
    """In a process of its own: at most 20 s of processor time and 3 GiB, with the imports."""
    code = (
        "import re, sys, time; from pathlib import Path; from icl_theory import llm; llm.load(sys.argv[1]); "
        "print(time.process_time(), *re.findall(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()))"
    )
    done = subprocess.run([sys.executable, "-c", code, PLACE], capture_output=True, text=True, check=True)
    seconds, kibibytes = map(float, done.stdout.split())
    assert seconds < 20
    assert kibibytes < 3 * 2**20
