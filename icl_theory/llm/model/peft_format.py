"""Writing adapters as the PEFT library reads them: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from icl_theory.errors import InputError
from icl_theory.llm.model.decoder import Decoder
from icl_theory.llm.model.lora import Lora, lora_of
from icl_theory.llm.model.weight_places import Place, weight_places
from icl_theory.results import writing

PREFIX = "base_model.model."  # of every tensor of PEFT


def save_adapter(model: Decoder, folder: str | Path, *, base: str) -> None:
    """Write the adapters of a decoder as a folder that PEFT loads, completely or not at all.

    Args:
        model: decoder with adapters.
        folder: a new folder.
        base: name or folder of the base model, for PEFT to find it.

    Raises:
        InputError: the model has no adapters, or the folder exists or cannot be written.
    """
    lora = lora_of(model)
    if lora is None:
        raise InputError("model", "no adapters", "train it with lora_rank, or save the whole model")
    tensors, ranks = adapter_tensors(model, lora)
    modules = sorted({name.split(".")[-3] for name in tensors})
    described = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "target_modules": modules,
        "rank_pattern": ranks,
        "alpha_pattern": {name: lora.scale * rank for name, rank in ranks.items()},
        "bias": "none",
        "fan_in_fan_out": False,
    }
    with writing(Path(folder)) as partial:
        partial.mkdir()
        (partial / "adapter_config.json").write_text(json.dumps(described, indent=2) + "\n")
        save_file(tensors, partial / "adapter_model.safetensors", metadata={"format": "pt"})


def adapter_tensors(model: Decoder, lora: Lora) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the tensors of the adapters by their names in PEFT, and the rank of each module that differs from r.

    Where the file format joins several matrices in one (Phi-3), so does PEFT's adapter: its A holds those of all
    adapted parts, one after the other, and its B is zero but for the rows and columns of each part.
    """
    flat: dict[Any, Any] = dict(nnx.to_flat_state(nnx.state(model, nnx.Param)))
    tensors, ranks = {}, {}
    for name, (paths, _, layer) in weight_places(model.config).items():
        parts = [path[:-1] for path in paths if (*path[:-1], "adapter", "a") in flat]
        if not parts or paths[0][-1] != "kernel":
            continue
        a, b = (
            [part.T for part in Place(tuple((*path, "adapter", kind) for path in parts), layer=layer).parts(flat)]
            for kind in "ab"
        )
        rank, module = lora.rank * len(parts), name.removesuffix(".weight")
        ends = np.cumsum([0, *(flat[path].shape[-1] for path in paths)])
        wide = np.zeros((ends[-1], rank), np.float32)
        for place, part in enumerate(parts):
            first = ends[paths.index((*part, "kernel"))]
            wide[first : first + len(b[place]), lora.rank * place : lora.rank * (place + 1)] = b[place]
        tensors[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(np.concatenate(a), np.float32)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = wide
        if rank != lora.rank:
            ranks[module.rsplit(".", 1)[-1]] = rank
    return tensors, ranks
