"""Where torch is installed: logits, losses and gradients beside Hugging Face's, and an exported job used by it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import run_command
from tiny_model import write_rows, write_tiny_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from make_llm_goldens import CONFIGS, SIZES, batch  # noqa: E402
from test_parity import close, gradients_of, logits_of, losses_of  # noqa: E402

from icl_theory.llm.model.checkpoint import load_decoder  # noqa: E402
from icl_theory.llm.model.weight_places import weight_places  # noqa: E402

WIDER = {"hidden_size": 48, "intermediate_size": 72, "vocab_size": 60}  # than those of the golden files


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("family", list(CONFIGS))
def test_everything_beside_the_other_implementation(tmp_path, family, side):
    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **CONFIGS[family], **WIDER})
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            weight.copy_(0.2 * torch.randn_like(weight) + ("norm.weight" in name))
    theirs.save_pretrained(tmp_path)
    ours = load_decoder(tmp_path)
    tokens, valid = batch(side == "left")
    mask = torch.tensor(valid)
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    logits = theirs(input_ids=torch.tensor(tokens), attention_mask=mask.long(), position_ids=positions).logits
    shown = logits_of(ours, jnp.asarray(tokens), jnp.asarray(valid))
    close(np.where(valid[..., None], shown, 0.0), np.where(valid[..., None], logits.detach().numpy(), 0.0))
    targets = torch.tensor(np.where(valid[:, 1:] & valid[:, :-1], tokens[:, 1:], -100))
    each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")
    losses = each.sum(1) / (targets != -100).sum(1)
    close(losses_of(ours, jnp.asarray(tokens), jnp.asarray(valid), jnp.asarray(valid)), losses.detach().numpy())
    losses.mean().backward()
    flat = dict(nnx.to_flat_state(gradients_of(ours, jnp.asarray(tokens), jnp.asarray(valid), jnp.asarray(valid))))
    known = dict(theirs.named_parameters())
    for name, place in weight_places(ours.config).items():
        close(place.tensor(flat), known[name].grad.numpy(), 1e-4)


def test_an_exported_job_answers_the_same_there(tmp_path, capsys):
    """Greedy replies of `transformers`, by its own model, tokenizer and chat template, are those that the job wrote."""
    rows = [{"question": f"{a}+{a}=", "answer": str(2 * a)} for a in range(8)]
    data = write_rows(tmp_path / "data.jsonl", rows)
    model, out = write_tiny_model(tmp_path / "model", chat=True), tmp_path / "out"
    options = ["--length", 16, "--steps", 60, "--learning-rate", 0.01, "--quiet", "--eval", data, "--max-new", 5]
    assert run_command("finetune", model, data, "--out", out, *options) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(out / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out / "model").eval()
    written = [json.loads(line) for line in (out / "after.jsonl").read_text().splitlines()]
    assert len({line["reply"] for line in written}) > 2
    for line in written:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": line["question"]}], tokenize=False, add_generation_prompt=True
        )
        prompt = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
        stop = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<stop>")]
        made = theirs.generate(prompt, max_new_tokens=5, do_sample=False, eos_token_id=stop, pad_token_id=0)
        assert tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True) == line["reply"]
