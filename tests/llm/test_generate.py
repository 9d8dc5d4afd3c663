"""Generation is the model's own most likely token; batches learn what they should, padded or packed."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from icl_theory.errors import InputError
from icl_theory.llm.data.batches import fitting, pack, pad
from icl_theory.llm.data.segments import Segment, joined
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.generate import _greedy, generate, rounded_up
from icl_theory.llm.training.step import batch_loss, token_total

GOLDENS = Path(__file__).parents[1] / "goldens" / "llm"
LETTERS = {letter: place for place, letter in enumerate("\n 0123456789+=?abcdefghijklmnop", start=3)}
END = 2


def encode(text):
    return [LETTERS[letter] for letter in text]


def tokenize(row, begin=None):
    segments = [Segment(row["prompt"], False), Segment(row["completion"], True)]
    return joined(segments, [encode(segment.text) for segment in segments], begin=begin, end=END)


def rows():
    return [
        {"prompt": "1+2=", "completion": "3"},
        {"prompt": "10+25=", "completion": "35"},
        {"prompt": "a", "completion": "bcd"},
    ]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi"])
def test_every_token_is_the_most_likely_of_the_whole_model(family):
    """Prompts of different lengths in one batch, against the model without a cache on each alone."""
    model = load_decoder(GOLDENS / family)
    random = np.random.default_rng(0)
    prompts = [random.integers(3, 40, length).tolist() for length in (9, 1, 17, 4)]
    logits_of = nnx.jit(lambda model, tokens: model(tokens))
    for prompt, made in zip(prompts, generate(model, prompts, max_new=12), strict=True):
        assert len(made) == 12
        whole = jnp.asarray([prompt + made + [0] * (40 - len(prompt) - len(made))])
        likely = np.asarray(logits_of(model, whole)).argmax(-1)[0]
        assert likely[len(prompt) - 1 : len(prompt) + 11].tolist() == made


def test_a_batch_gives_what_each_prompt_gives_alone():
    model = load_decoder(GOLDENS / "llama")
    random = np.random.default_rng(1)
    prompts = [random.integers(3, 40, length).tolist() for length in (20, 3, 16)]
    stop = generate(model, prompts, max_new=12)[1][5]
    together = generate(model, prompts, max_new=12, stop=[stop])
    assert len(together[1]) <= 5
    assert together == [generate(model, [prompt], max_new=12, stop=[stop])[0] for prompt in prompts]


def test_changed_numbers_need_no_new_program():
    """Of prompts, of their tokens and of new tokens."""
    model, before = load_decoder(GOLDENS / "llama"), _greedy._cache_size()
    for count, length, most in ((9, 3, 9), (10, 16, 16), (9, 12, 1)):
        made = generate(model, [[5 + row] * length for row in range(count)], max_new=most, stop=[2] * 2)
        assert [len(new) for new in made] == [most] * count
    assert _greedy._cache_size() == before + 1
    assert [rounded_up(size) for size in (1, 2, 3, 5, 7, 9, 13, 17, 25, 33)] == [1, 2, 3, 5, 7, 10, 14, 20, 28, 40]
    assert rounded_up(3, 16) == 16


def test_a_stop_token_ends_its_own_row_only():
    model = load_decoder(GOLDENS / "llama")
    prompts = [[5, 6, 7], [8, 9], [10]]
    free = generate(model, prompts, max_new=10)
    stop = free[0][3]
    ended = generate(model, prompts, max_new=10, stop=[stop], batch_size=2)
    for whole, cut in zip(free, ended, strict=True):
        assert cut == (whole[: whole.index(stop)] if stop in whole else whole)
    assert len(ended[0]) <= 3


def test_prompts_that_cannot_be():
    model = load_decoder(GOLDENS / "llama")
    with pytest.raises(InputError, match="empty"):
        generate(model, [[3], []], max_new=2)
    with pytest.raises(InputError, match="from 0 to 39"):
        generate(model, [[40]], max_new=2)
    with pytest.raises(InputError, match="at least 1"):
        generate(model, [[4]], max_new=0)


def test_only_the_completion_and_its_end_are_learned():
    example = tokenize(rows()[1], begin=1)
    assert example.tokens.tolist() == [1, *encode("10+25=35"), END]
    batch = pad([example], 16)
    assert batch.tokens[0][batch.learned[0]].tolist() == [*encode("35"), END]
    whole = pad([joined([Segment("abc", True)], [encode("abc")], begin=None, end=END)], 8)
    assert whole.tokens[0][whole.learned[0]].tolist() == [*encode("bc"), END]


def test_what_does_not_fit_is_counted():
    examples = [tokenize(row) for row in rows()]
    assert fitting(examples, 8).tolist() == [True, False, True]
    with pytest.raises(InputError, match="at most 8 fit"):
        pad(examples, 8)
    with pytest.raises(InputError, match="at most 8 fit"):
        pack(examples, 8)


def loss_under(model):
    return jax.jit(
        lambda batch: batch_loss(model, model.hidden(batch.tokens, segments=batch.segments), batch, token_total(batch))
    )


def test_packing_changes_no_loss():
    model = load_decoder(GOLDENS / "qwen3")
    examples = [tokenize(row) for row in rows() * 3]
    padded, packed = pad(examples, 12), pack(examples, 24)
    assert len(packed.tokens) < len(padded.tokens)
    loss = loss_under(model)
    np.testing.assert_allclose(loss(packed), loss(padded), rtol=1e-5)
    assert packed.learned.sum() == padded.learned.sum()


def test_empty_rows_weigh_nothing():
    model = load_decoder(GOLDENS / "qwen3")
    examples = [tokenize(row) for row in rows()]
    loss = loss_under(model)
    np.testing.assert_allclose(loss(pad(examples, 12, rows=5)), loss(pad(examples, 12)), rtol=1e-6)
    weighted = pad(examples, 12, weight=[2.0, 1.0, 1.0])
    np.testing.assert_allclose(loss(weighted), loss(pad([examples[0], *examples], 12)), rtol=1e-5)
