"""Losses recorded by Hugging Face's Trainer, with a tiny model of random weights. Runs where torch is installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from icl_theory.errors import InputError  # noqa: E402
from icl_theory.upsampling.huggingface import RecordLosses, example_losses  # noqa: E402
from icl_theory.upsampling.record_files import load_loss_record  # noqa: E402
from icl_theory.upsampling.rule import upsample  # noqa: E402

VOCABULARY, LENGTHS, STEPS = 16, (5, 9, 7, 6, 8, 5, 7, 9, 6, 4), 6


def rows():
    generator = np.random.default_rng(0)
    return [{"input_ids": generator.integers(1, VOCABULARY, size=length).tolist()} for length in LENGTHS]


def collate(examples):
    longest = max(len(row["input_ids"]) for row in examples)
    tokens = torch.zeros((len(examples), longest), dtype=torch.long)
    labels = torch.full_like(tokens, -100)
    mask = torch.zeros_like(tokens)
    for place, row in enumerate(examples):
        ids = torch.tensor(row["input_ids"])
        tokens[place, : len(ids)] = ids
        labels[place, 2 : len(ids)] = ids[2:]  # the first two are the prompt
        mask[place, : len(ids)] = 1
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def model(dropout=0.0):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = transformers.LlamaConfig(vocab_size=VOCABULARY, attention_dropout=dropout, pad_token_id=0, **sizes)
    return transformers.LlamaForCausalLM(settings)


def train(folder, network, steps=STEPS, resume=None, callbacks=(), data=None, **settings):
    usual = {"per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_steps": 4, "use_cpu": True}
    quiet = {"report_to": [], "disable_tqdm": True, "lr_scheduler_type": "constant"}
    arguments = transformers.TrainingArguments(output_dir=str(folder), max_steps=steps, **usual | quiet | settings)
    sets = {"train_dataset": rows() if data is None else data, "eval_dataset": rows()}
    trainer = transformers.Trainer(network, arguments, data_collator=collate, callbacks=list(callbacks), **sets)
    trainer.train(resume_from_checkpoint=resume)
    return network


def test_losses_are_those_of_the_model_one_by_one():
    network = model()
    found = example_losses(network, rows(), collate, batch_size=3)
    alone = [network(**collate([row])).loss.item() for row in rows()]
    np.testing.assert_allclose(found, alone, rtol=1e-5)
    assert network.training


def test_an_example_without_labels_has_nothing_to_lose():
    assert example_losses(model(), [{"input_ids": [1, 2]}], collate)[0] == 0


def test_the_trainer_records_before_during_and_after(tmp_path):
    ids = [f"example {row}" for row in range(len(LENGTHS))]
    network = train(tmp_path / "run", model(), callbacks=[RecordLosses(tmp_path / "losses.zarr", every=4, ids=ids)])
    record = load_loss_record(tmp_path / "losses.zarr")
    assert record.steps.tolist() == [0, 4, 6]
    assert record.ids.to_pylist() == ids
    np.testing.assert_allclose(record.losses[0], example_losses(model(), rows(), collate), rtol=1e-5)
    np.testing.assert_allclose(record.losses[-1], example_losses(network, rows(), collate), rtol=1e-5)
    assert record.losses[-1].mean() < record.losses[0].mean()


class Padded(torch.utils.data.Dataset):
    """Rows that a trainer made of others: in another order, without the last."""

    kept = (4, 2, 0, 1, 3, 8, 7, 6, 5)

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, place):
        return {"id": f"example {self.kept[place]}", **rows()[self.kept[place]]}


def test_ids_are_those_of_the_rows_that_are_trained_on(tmp_path):
    datasets = pytest.importorskip("datasets")
    kept = Padded()
    column = datasets.Dataset.from_list([kept[place] for place in range(len(kept))])
    alone = example_losses(model(), rows(), collate)
    for name, data, settings in (("torch", kept, {}), ("datasets", column, {"remove_unused_columns": False})):
        record = RecordLosses(tmp_path / f"{name}.zarr", every=9, id_column="id")
        train(tmp_path / name, model(), steps=1, callbacks=[record], data=data, **settings)
        found = load_loss_record(tmp_path / f"{name}.zarr")
        assert found.ids.to_pylist() == [f"example {row}" for row in kept.kept]
        np.testing.assert_allclose(found.losses[0], alone[list(kept.kept)], rtol=1e-5)
    for name, data, said in (
        ("id", column, "'id': the trainer kept only input_ids; set remove_unused_columns=False"),
        ("uid", kept, "'uid': the rows of the data set do not have it"),
    ):
        record = RecordLosses(tmp_path / f"no-{name}.zarr", every=9, id_column=name)
        with pytest.raises(InputError, match=said):
            train(tmp_path / name, model(), steps=1, callbacks=[record], data=data)


def test_a_resumed_run_reads_the_ids_again(tmp_path):
    for resume in (None, str(tmp_path / "run" / "checkpoint-4")):
        record = RecordLosses(tmp_path / "losses.zarr", every=2, id_column="id")
        train(tmp_path / "run", model(), resume=resume, callbacks=[record], data=Padded())
    assert load_loss_record(tmp_path / "losses.zarr").steps.tolist() == [0, 2, 4, 6]


def test_ids_of_more_or_fewer_rows_than_the_trainer_has(tmp_path):
    for count, said in ((10, "9 examples, the trainer dropped 1 rows.*id_column='id'"), (8, "9 examples, more than")):
        record = RecordLosses(tmp_path / "losses.zarr", every=9, ids=list(range(count)))
        with pytest.raises(InputError, match=f"{count} of them': there are {said}"):
            train(tmp_path / "run", model(), steps=1, callbacks=[record], data=Padded())
    with pytest.raises(InputError, match="with ids it does nothing"):
        RecordLosses(tmp_path / "losses.zarr", every=9, ids=[1], id_column="id")
    with pytest.raises(InputError, match=r"end it in \.zarr"):
        RecordLosses(tmp_path / "losses.npz", every=9, id_column="id")


def trl_trainer(folder, rows, callbacks=(), **settings):
    """An `SFTTrainer` with one token for each letter."""
    trl, tokenizers = pytest.importorskip("trl"), pytest.importorskip("tokenizers")
    vocabulary = {letter: place for place, letter in enumerate(("<pad>", "<eos>", *"abcdefghijklmn"))}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<eos>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    usual = {"max_steps": 1, "max_length": 16, "packing": False, "use_cpu": True, "bf16": False}
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    arguments = trl.SFTConfig(output_dir=str(folder), **usual | quiet | settings)
    parts = {"train_dataset": rows, "processing_class": tokenizer, "callbacks": list(callbacks)}
    return trl.SFTTrainer(model=model(), args=arguments, **parts)


def test_rows_that_trl_drops_and_shuffles(tmp_path):
    """The prompt of row 3 leaves no room for a completion; the loss of each other is that of the row alone."""
    datasets = pytest.importorskip("datasets")
    given = [
        {"id": f"r{row}", "prompt": "a" * (30 if row == 3 else 3), "completion": "bcdefghijk"[: row + 1]}
        for row in range(10)
    ]
    given = datasets.Dataset.from_list(given)
    found = {}
    for name, settings in {"kept": {"remove_unused_columns": False}, "removed": {}}.items():
        path = tmp_path / f"{name}.zarr"
        early = [RecordLosses(path, every=9, id_column="id")] if settings else []
        trainer = trl_trainer(tmp_path / name, given, early, shuffle_dataset=True, **settings)
        if not settings:
            trainer.add_callback(RecordLosses(path, every=9, ids=trainer.train_dataset["id"]))
        trainer.train()
        found[name] = load_loss_record(path).for_ids([f"r{row}" for row in range(10) if row != 3])
    np.testing.assert_array_equal(found["kept"].losses[0], found["removed"].losses[0])
    for place, name in enumerate(found["kept"].ids.to_pylist()):
        answer = "bcdefghijk"[: int(name[1:]) + 1]
        tokens = torch.tensor([[2, 2, 2, *(ord(letter) - ord("a") + 2 for letter in answer), 1]])
        labels = torch.where(torch.arange(tokens.shape[1]) < 3, -100, tokens)
        alone = model()(input_ids=tokens, labels=labels).loss.item()
        np.testing.assert_allclose(found["kept"].losses[0, place], alone, rtol=1e-4)
    with pytest.raises(InputError, match="10 of them': there are 9 examples, the trainer dropped 1 rows, as TRL does"):
        trl_trainer(tmp_path / "ids", given, [RecordLosses(tmp_path / "a.zarr", every=9, ids=given["id"])]).train()


def test_recording_does_not_change_training(tmp_path):
    with_record = train(tmp_path / "a", model(0.3), callbacks=[RecordLosses(tmp_path / "losses.zarr", every=1)])
    without = train(tmp_path / "b", model(0.3))
    for ours, theirs in zip(with_record.parameters(), without.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_resumed_run_goes_on_with_its_record(tmp_path):
    whole, parts = tmp_path / "whole.zarr", tmp_path / "parts.zarr"
    train(tmp_path / "whole", model(), callbacks=[RecordLosses(whole, every=2)])
    train(tmp_path / "parts", model(), callbacks=[RecordLosses(parts, every=2)])
    checkpoint = str(tmp_path / "parts" / "checkpoint-4")
    train(tmp_path / "parts", model(), resume=checkpoint, callbacks=[RecordLosses(parts, every=2)])
    expected, found = load_loss_record(whole), load_loss_record(parts)
    assert found.steps.tolist() == expected.steps.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


def test_the_last_losses_are_those_of_the_last_step(tmp_path):
    """Where the Trainer loads an earlier model when it ends, they are taken before."""
    plain = train(tmp_path / "plain", model())
    arguments = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    worst = {"metric_for_best_model": "loss", "greater_is_better": True}  # the model of the first steps
    train(tmp_path / "best", model(), callbacks=[RecordLosses(tmp_path / "losses.zarr", every=4)], **arguments, **worst)
    record = load_loss_record(tmp_path / "losses.zarr")
    assert record.steps[-1] == STEPS
    np.testing.assert_allclose(record.losses[-1], example_losses(plain, rows(), collate), rtol=1e-5)


def test_a_new_run_does_not_replace_a_record(tmp_path):
    record = tmp_path / "losses.zarr"
    train(tmp_path / "a", model(), steps=2, callbacks=[RecordLosses(record, every=1)])
    with pytest.raises(InputError, match="earlier run"):
        train(tmp_path / "b", model(), steps=2, callbacks=[RecordLosses(record, every=1)])
    assert load_loss_record(record).steps.tolist() == [0, 1, 2]


def test_losses_that_are_not_finite_do_not_end_training(tmp_path):
    network = model()
    with torch.no_grad():
        network.lm_head.weight[0] = float("nan")
    with pytest.warns(UserWarning, match="not finite"):
        train(tmp_path / "run", network, steps=2, callbacks=[RecordLosses(tmp_path / "losses.zarr", every=1)])


def test_modes_of_modules_are_kept():
    network = model()
    network.model.layers[0].eval()
    example_losses(network, rows(), collate)
    assert not network.model.layers[0].self_attn.training
    assert network.model.layers[1].self_attn.training


def test_models_with_an_encoder_are_refused():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": VOCABULARY}
    network = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    with pytest.raises(InputError, match="it has an encoder"):
        example_losses(network, rows(), collate)


def test_streams_and_packing_are_refused():
    with pytest.raises(InputError, match="with a length"):
        example_losses(model(), iter(rows()), collate)
    with pytest.raises(InputError, match="packing off"):
        example_losses(model(), rows(), lambda examples: {"input_ids": torch.ones((1, 4), dtype=torch.long)})


def test_weights_drive_the_weighted_sampler(tmp_path):
    train(tmp_path / "run", model(), steps=30, callbacks=[RecordLosses(tmp_path / "losses.zarr", every=3)])
    found = upsample(load_loss_record(tmp_path / "losses.zarr"), factor=3.0)
    torch.manual_seed(0)
    sampler = torch.utils.data.WeightedRandomSampler(found.weights, num_samples=20_000)
    share = np.isin(list(sampler), np.flatnonzero(found.late)).mean()
    late = found.late.mean()
    expected = 3 * late / (3 * late + 1 - late)
    assert 0 < late < 1
    assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 20_000)
