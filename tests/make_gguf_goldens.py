"""Write the golden numbers of tests of GGUF files. Run by hand, with torch, accelerate and sentencepiece.

python tests/make_gguf_goldens.py sentencepiece
python tests/make_gguf_goldens.py gemma PATH/gemma-3-270m-q4_k_m.gguf

The first writes goldens/sentencepiece.json: vocabularies that SentencePiece trained, and the ids that it gives. The
second writes goldens/gemma3_270m.npz: what `transformers` makes of Gemma 3 270M in that file.
"""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
from hard_texts import GREEDY, HARD_TEXTS, LONG_TEXT, REPEATED, SENTENCEPIECE_TEXTS

FOLDER = Path(__file__).parent / "goldens"
ENDS = {"pad": 0, "eos": 1, "bos": 2, "unk": 3}
EVERY = 997  # columns of logits that are kept


def sentencepiece_goldens():
    runs = [char * count for char in "▁\n\t" for count in range(2, 32)] + ["\n", "\t", "<table>"]
    found = {"plain": trained(False, runs), "prefixed": trained(True, [])}
    (FOLDER / "sentencepiece.json").write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n")


def trained(prefix, symbols):
    """A vocabulary as a GGUF file holds it, with the ids of the hard texts; tokens within them stand for themselves."""
    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in (*HARD_TEXTS[:10], LONG_TEXT) for line in text.split("\n")),
        model_writer=made,
        model_type="bpe",
        vocab_size=460 + len(symbols),
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=1.0,
        add_dummy_prefix=prefix,
        user_defined_symbols=symbols,
        minloglevel=2,
        **{f"{name}_id": place for name, place in ENDS.items()},
        **{f"{name}_piece": f"<{name}>" for name in ENDS},
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    tokens, types = [], []
    for place in range(len(model)):
        token = model.id_to_piece(place)
        types.append(
            2 if model.is_unknown(place) else 3 if model.is_control(place) else 6 if model.is_byte(place) else 1
        )
        if token in symbols:
            types[-1], token = 4, token.replace("▁", " ")
        tokens.append(token)
    scores = [model.get_score(place) for place in range(len(model))]
    within = re.compile("(<pad>|<eos>|<bos>|<unk>)")
    ids = [
        [
            one
            for part in within.split(text)
            for one in ([ENDS[part[1:-1]]] if within.fullmatch(part) else model.encode(part) if part else [])
        ]
        for text in SENTENCEPIECE_TEXTS
    ]
    return {"tokens": tokens, "scores": scores, "types": types, "ids": ids}


def gemma_goldens(path):
    import torch
    import transformers

    place = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**place)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = [tokenizer.encode(text) for text in HARD_TEXTS]
    saved = {"ids": np.concatenate(ids), "lengths": np.array([len(one) for one in ids])}
    with torch.no_grad():
        tokens = torch.tensor([tokenizer.encode(LONG_TEXT * REPEATED)])
        logits = model(input_ids=tokens).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:], reduction="none")
        asked = torch.tensor([tokenizer.encode(GREEDY)])
        reply = model.generate(asked, max_new_tokens=24, do_sample=False)[0, asked.shape[1] :]
    saved |= {"tokens": tokens[0].numpy(), "logits": logits[::16, ::EVERY].numpy(), "losses": losses.numpy()}
    np.savez_compressed(FOLDER / "gemma3_270m.npz", **saved, reply=reply.numpy())


if __name__ == "__main__":
    if sys.argv[1:] == ["sentencepiece"]:
        sentencepiece_goldens()
    elif sys.argv[1:2] == ["gemma"] and len(sys.argv) == 3:
        gemma_goldens(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
