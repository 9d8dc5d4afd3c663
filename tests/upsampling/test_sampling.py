"""Rows drawn by weight in Hugging Face's Trainer and TRL's. Runs where torch is installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from icl_theory.errors import InputError  # noqa: E402
from icl_theory.upsampling.sampling import SampleByWeight, UpsampledSampler  # noqa: E402

WEIGHTS = np.array([3.0, 1.0, 1.0, 0.0, 2.0, 1.0, 1.0, 1.0])


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, labels=None):
        return {"loss": ((self.layer(x) - x) ** 2).mean()}


class Weighted(SampleByWeight, transformers.Trainer):
    """The trainer that the module's docstring describes."""


def run(folder, weights=WEIGHTS, kind=Weighted, resume=None, data=None, **settings):
    """Train and return the numbers of the rows in the order in which they were used, and the model."""
    pytest.importorskip("accelerate")
    used = []

    def collate(rows):
        used.extend(row["number"] for row in rows)
        return {"x": torch.tensor([[float(row["number"])] for row in rows])}

    usual = {"per_device_train_batch_size": 3, "num_train_epochs": 4, "remove_unused_columns": False, "seed": 5}
    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_steps": 5, "learning_rate": 1e-3}
    arguments = transformers.TrainingArguments(output_dir=str(folder), **usual | quiet | settings)
    rows = [{"number": row} for row in range(8)] if data is None else data
    trainer = kind(Linear(), arguments, data_collator=collate, train_dataset=rows)
    trainer.row_weights = weights
    trainer.train(resume_from_checkpoint=resume)
    return used, trainer


def test_each_epoch_holds_each_row_as_often_as_its_weight(tmp_path):
    used, trainer = run(tmp_path)
    assert len(used) == 4 * 10
    epochs = np.reshape(used, (4, 10))
    for epoch in epochs:
        np.testing.assert_array_equal(np.bincount(epoch, minlength=8), WEIGHTS)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert trainer.state.global_step == 16  # 10 rows, 3 a step


def test_equal_steps_are_those_of_max_steps(tmp_path):
    used, trainer = run(tmp_path, max_steps=6)
    assert trainer.state.global_step == 6
    assert np.bincount(used[:10], minlength=8).tolist() == WEIGHTS.tolist()


def test_a_resumed_run_draws_the_same_rows(tmp_path):
    whole, trainer = run(tmp_path / "whole")
    resumed, other = run(tmp_path / "whole", resume=str(tmp_path / "whole" / "checkpoint-10"))
    assert resumed[-14:] == whole[-14:]  # four rows of steps 11 and 12, and the last epoch
    for ours, theirs in zip(trainer.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_seed_of_the_data_decides(tmp_path):
    first, again, other = (run(tmp_path, max_steps=4, data_seed=seed)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_without_weights_the_trainer_samples_as_ever(tmp_path):
    assert run(tmp_path / "a", weights=None)[0] == run(tmp_path / "b", None, transformers.Trainer)[0]


def test_processes_share_an_epoch():
    accelerate = pytest.importorskip("accelerate")
    parts = []
    for process in range(2):
        batches = torch.utils.data.BatchSampler(UpsampledSampler(WEIGHTS, seed=5), 1, drop_last=False)
        shard = accelerate.data_loader.BatchSamplerShard(batches, num_processes=2, process_index=process)
        parts += [row for batch in shard for row in batch]
    np.testing.assert_array_equal(np.bincount(parts, minlength=8), WEIGHTS)


def test_weights_that_are_not_whole_hold_on_average():
    weights = np.array([0.25, 1.5, 2.75, 1.0, 0.5])
    sampler = UpsampledSampler(weights)
    counts = np.array([np.bincount(list(sampler), minlength=5) for _ in range(2000)])
    assert len(sampler) == 6
    assert np.all(counts.sum(axis=1) == 6)
    assert np.all((counts == np.floor(weights)) | (counts == np.ceil(weights)))
    error = np.sqrt((weights % 1) * (1 - weights % 1) / 2000)
    assert np.all(np.abs(counts.mean(axis=0) - weights) <= 4 * error)


def test_an_epoch_can_be_drawn_again():
    sampler = UpsampledSampler(WEIGHTS, seed=3)
    first, second = list(sampler), list(sampler)
    assert first != second
    sampler.set_epoch(1)
    assert list(sampler) == second


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, -1.0], "numbers from 0"),
        ([1.0, np.nan], "numbers from 0"),
        ([1.0, np.inf], "numbers from 0"),
        ([0.0, 0.0], "sum to 1"),
        ([], "one for each row"),
        ([[1.0]], "one for each row"),
        (["a"], "real numbers"),
    ],
)
def test_weights_that_cannot_be_drawn_by(weights, said):
    with pytest.raises(InputError, match=said):
        UpsampledSampler(weights)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from ({"number": row} for row in range(8))


def test_weights_that_do_not_fit_the_rows(tmp_path):
    with pytest.raises(InputError, match="row_weights = '7 of them': the trainer holds 8 rows"):
        run(tmp_path, WEIGHTS[:7])
    with pytest.raises(InputError, match="takes another sampler"):
        run(tmp_path, data=Stream(), max_steps=1)


def test_with_trl(tmp_path):
    """The weights are those of the rows that are left; a prompt without room for a completion is dropped."""
    trl, tokenizers = pytest.importorskip("trl"), pytest.importorskip("tokenizers")
    datasets = pytest.importorskip("datasets")
    vocabulary = {letter: place for place, letter in enumerate(("<pad>", "<eos>", *"abcdefghijklmn"))}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<eos>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=16, pad_token_id=0, **sizes))
    rows = [{"id": letter, "prompt": "n" * (30 if letter == "b" else 3), "completion": letter} for letter in "abcdefgh"]
    used = []

    class WeightedTrainer(SampleByWeight, trl.SFTTrainer):
        def compute_loss(self, model, inputs, *others, **named):
            used.extend(inputs["input_ids"][:, 3].tolist())  # the token of the completion
            return super().compute_loss(model, inputs, *others, **named)

    quiet = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "bf16": False, "save_strategy": "no"}
    settings = {"max_length": 16, "packing": False, "num_train_epochs": 1, "per_device_train_batch_size": 2}
    arguments = trl.SFTConfig(output_dir=str(tmp_path), **quiet, **settings)
    trainer = WeightedTrainer(
        model=network, args=arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )
    left = trainer.train_dataset["id"]
    assert "b" not in left
    trainer.row_weights = [3.0 if name == "c" else 1.0 for name in left]
    trainer.train()
    assert sorted(used) == sorted(vocabulary[name] for name in "accc" + "defgh")
