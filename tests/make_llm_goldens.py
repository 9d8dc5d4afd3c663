"""Write tests/goldens/llm: what `transformers` makes of a tiny random model of each family. Needs torch; run by hand.

python tests/make_llm_goldens.py
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers

FOLDER = Path(__file__).parent / "goldens" / "llm"
SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Shapes of config.json as the hub has them: long enough sequences for windows and rope scaling to matter.
CONFIGS = {
    "llama": {"rope_parameters": LLAMA3, "num_hidden_layers": 2, "tie_word_embeddings": True, "rms_norm_eps": 1e-5},
    "mistral": {
        "head_dim": 8,
        "num_hidden_layers": 2,
        "sliding_window": 7,
        "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    },
    "qwen2": {
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 1,
        "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"},
    },
    "qwen3": {"head_dim": 8, "num_hidden_layers": 2, "tie_word_embeddings": True},
    "gemma3_text": {
        "head_dim": 10,
        "num_hidden_layers": 3,
        "query_pre_attn_scalar": 12,
        "sliding_window": 7,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    },
    "phi": {
        "num_hidden_layers": 2,
        "rope_parameters": {"partial_rotary_factor": 0.7, "rope_theta": 100.0, "rope_type": "default"},
    },
    "phi3": {
        "num_hidden_layers": 2,
        "sliding_window": 11,
        "rope_parameters": {"partial_rotary_factor": 0.7, "rope_theta": 100.0, "rope_type": "default"},
    },
}
VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "vision_use_head": False,
}
LENGTHS = (48, 29, 11)
COMPARED = {
    "llama": "mlp.gate_proj",
    "mistral": "self_attn.o_proj",
    "qwen2": "self_attn.q_proj",
    "qwen3": "self_attn.k_norm",
    "gemma3_text": "self_attn.q_proj",
    "phi": "self_attn.dense",
    "phi3": "self_attn.qkv_proj",
}


def model_of(family):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**SIZES, **CONFIGS[family]})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # away from zeros and ones, so that a lost norm or bias shows
            weight.copy_(0.3 * torch.randn_like(weight) + ("norm.weight" in name))
    return model


def batch(left):
    generator = np.random.default_rng(1)
    tokens = np.zeros((len(LENGTHS), max(LENGTHS)), np.int64)
    valid = np.zeros(tokens.shape, bool)
    for row, length in enumerate(LENGTHS):
        place = slice(max(LENGTHS) - length, None) if left else slice(length)
        tokens[row, place] = generator.integers(3, SIZES["vocab_size"], length)
        valid[row, place] = True
    return tokens, valid


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for family in CONFIGS:
        model = model_of(family)
        saved = {}
        for side in ("right", "left"):
            tokens, valid = batch(side == "left")
            mask = torch.tensor(valid)
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
            logits = model(input_ids=torch.tensor(tokens), attention_mask=mask.long(), position_ids=positions).logits
            targets = torch.tensor(np.where(valid, tokens, -100))[:, 1:]
            if side == "left":
                targets = torch.where(mask[:, :-1], targets, -100)
            each = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), targets, reduction="none")
            losses = each.sum(1) / (targets != -100).sum(1)
            model.zero_grad()
            losses.mean().backward()
            gradients = {name: weight.grad for name, weight in model.named_parameters()}
            saved |= {
                f"{side}_tokens": tokens,
                f"{side}_valid": valid,
                f"{side}_logits": np.where(valid[..., None], logits.detach().numpy(), 0.0)[:, ::3].astype(np.float32),
                f"{side}_losses": losses.detach().numpy(),
                f"{side}_gradient": gradients[f"model.layers.1.{COMPARED[family]}.weight"].numpy(),
                f"{side}_gradient_norms": np.array([gradients[name].norm() for name in sorted(gradients)], np.float32),
            }
        np.savez_compressed(FOLDER / f"{family}.npz", **saved)
        save(model, FOLDER / family)
        if family == "gemma3_text":
            save(with_vision(model), FOLDER / "gemma3")


def with_vision(text):
    """The text model as part of one with a vision tower, which gives it the same logits."""
    config = transformers.Gemma3Config(
        text_config=text.config.to_dict(), vision_config={"model_type": "siglip_vision_model", **VISION}
    )
    config.mm_tokens_per_image = 4
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    model.model.language_model.load_state_dict(text.model.state_dict())
    tokens = torch.tensor(batch(left=False)[0])
    torch.testing.assert_close(model(input_ids=tokens).logits, text(input_ids=tokens).logits, rtol=1e-4, atol=1e-4)
    return model


def save(model, folder):
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    described = json.loads((folder / "config.json").read_text())
    described.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main()
