"""Write tests/goldens/llm/lora.npz: what PEFT makes of adapters that this package saved. Needs torch and peft.

PYTHONPATH=tests:. python tests/make_lora_goldens.py
"""

import tempfile
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from adapters import GOLDENS, LORA, tokens, with_random_adapters
from safetensors.numpy import load_file

from icl_theory.llm.model.peft_format import save_adapter


def main():
    saved = {}
    for family in LORA:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "adapter"
            save_adapter(with_random_adapters(family), folder, base=str(GOLDENS / family))
            base = transformers.AutoModelForCausalLM.from_pretrained(GOLDENS / family, attn_implementation="eager")
            model = peft.PeftModel.from_pretrained(base, folder, is_trainable=True).eval()
            model.save_pretrained(Path(place) / "again")
            tensors = load_file(Path(place) / "again" / "adapter_model.safetensors")
        given = torch.tensor(tokens())
        logits = model(input_ids=given).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), given[:, 1:].flatten()).backward()
        trained = {name.replace(".default", ""): weight.grad for name, weight in model.named_parameters()}
        gradients = {name: gradient.numpy() for name, gradient in trained.items() if gradient is not None}
        assert gradients.keys() == tensors.keys(), family
        saved |= {f"{family}/logits": logits.detach().numpy()}
        saved |= {f"{family}/tensor/{name}": tensor for name, tensor in tensors.items()}
        saved |= {f"{family}/gradient/{name}": gradient for name, gradient in gradients.items()}
        merged = model.merge_and_unload().state_dict()
        names = {name.removeprefix("base_model.model.").rsplit(".", 2)[0] + ".weight" for name in tensors}
        saved |= {f"{family}/merged/{name}": merged[name].numpy() for name in sorted(names) if ".1." in name}
    np.savez_compressed(GOLDENS / "lora.npz", **saved)


if __name__ == "__main__":
    main()
