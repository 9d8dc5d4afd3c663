"""Fine-tuning: the same weights whether stopped on the way or not, every example once an epoch, losses recorded."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.llm.data.batches import Tokenized
from icl_theory.llm.model.checkpoint import load_decoder
from icl_theory.llm.model.sharding import cut, make_mesh
from icl_theory.llm.training import train
from icl_theory.llm.training.config import FinetuneConfig
from icl_theory.llm.training.train import Batches, finetune

GOLDEN = Path(__file__).parents[1] / "goldens" / "llm" / "llama"
SIZES = [6 + row % 3 for row in range(10)]
EXAMPLES = [
    Tokenized(np.random.default_rng(row).integers(3, 40, size).astype(np.int32), np.arange(size) >= 3)
    for row, size in enumerate(SIZES)
]
CONFIG = FinetuneConfig(
    length=8, batch_size=4, num_steps=12, learning_rate=1e-2, warmup=2, sharpness="fsam", rho=0.01, weight_decay=0.01
)


def weights(model):
    return jax.tree.leaves(nnx.state(model, nnx.Param))


def test_a_run_that_was_stopped_ends_in_the_same_weights(tmp_path):
    model = load_decoder(GOLDEN)
    before = [np.asarray(leaf) for leaf in weights(model)]
    whole = finetune(model, EXAMPLES, CONFIG, recorder=icl.LossRecorder(tmp_path / "whole.zarr"), record_every=4)

    class Stop(Exception):
        pass

    def stop(done, total, loss):
        if done == 7:
            raise Stop

    settings = {"folder": tmp_path / "run", "save_every": 3, "record_every": 4}
    with pytest.raises(Stop):
        finetune(model, EXAMPLES, CONFIG, recorder=icl.LossRecorder(tmp_path / "parts.zarr"), progress=stop, **settings)
    again = finetune(model, EXAMPLES, CONFIG, recorder=icl.LossRecorder(tmp_path / "parts.zarr"), **settings)
    np.testing.assert_array_equal(again.losses, whole.losses)
    assert np.all(whole.losses > 0)
    for ours, theirs in zip(weights(again.model), weights(whole.model), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    records = [icl.load_loss_record(tmp_path / f"{name}.zarr") for name in ("whole", "parts")]
    assert records[0].steps.tolist() == records[1].steps.tolist() == [0, 4, 8, 12]
    np.testing.assert_array_equal(records[0].losses, records[1].losses)
    assert records[0].losses[-1].mean() < 0.9 * records[0].losses[0].mean()
    for ours, theirs in zip(weights(model), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    calls = []
    done = finetune(model, EXAMPLES, CONFIG, progress=lambda *call: calls.append(call), **settings)
    assert calls == []  # complete already
    np.testing.assert_array_equal(done.losses, whole.losses)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(tmp_path):
    model, losses = load_decoder(GOLDEN), tmp_path / "losses.zarr"
    config = FinetuneConfig(length=8, batch_size=4, num_steps=4, learning_rate=1e-2)

    def stop(done, total, loss):
        if done == 3:
            raise InterruptedError

    settings = {"folder": tmp_path / "run", "record_every": 1}
    with pytest.raises(InterruptedError):
        finetune(model, EXAMPLES, config, recorder=icl.LossRecorder(losses), progress=stop, **settings)
    finetune(model, EXAMPLES, config, recorder=icl.LossRecorder(losses), **settings)
    assert icl.load_loss_record(losses).steps.tolist() == [0, 1, 2, 3, 4]


def test_every_row_comes_once_an_epoch():
    rows = np.array([0, 0, 1, 2, 5])
    config = FinetuneConfig(batch_size=3, length=8)
    batches = Batches(EXAMPLES, rows, config)
    seen = np.concatenate([batches.chosen(step) for step in range(5)])
    for epoch in range(3):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == rows.tolist()
    assert (seen[:5] != seen[5:10]).any()
    np.testing.assert_array_equal(Batches(EXAMPLES, rows, config).chosen(3), batches.chosen(3))


def test_packed_epochs_hold_every_example_once_and_resume_alike():
    config = FinetuneConfig(batch_size=2, length=16, packing=True)
    batches = Batches(EXAMPLES, np.arange(10), config)
    drawn = [batches.at_step(step) for step in range(5)]
    for ours, theirs in zip(Batches(EXAMPLES, np.arange(10), config).at_step(4), drawn[4], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rows = [
        (tokens, segments) for batch in drawn for tokens, segments in zip(batch.tokens, batch.segments, strict=True)
    ]
    seen = [tuple(tokens[segments == n].tolist()) for tokens, segments in rows for n in range(1, segments.max() + 1)]
    assert sorted(seen[:10]) == sorted(tuple(example.tokens.tolist()) for example in EXAMPLES)
    assert sorted(seen[10:20]) == sorted(seen[:10])
    assert seen[10:20] != seen[:10]


ON_FOUR = """
import sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np
from test_train import CONFIG, EXAMPLES, GOLDEN, finetune, load_decoder, weights
import dataclasses
from icl_theory.llm.model.sharding import make_mesh
assert jax.device_count() == 4
for optimizer, packing in (("adamw", False), ("muon", True)):
    config = dataclasses.replace(CONFIG, optimizer=optimizer, packing=packing, accumulate=1 + packing, batch_size=8)
    parts = []
    for mesh in (None, make_mesh(1), make_mesh(2), make_mesh(4)):
        found = finetune(load_decoder(GOLDEN), EXAMPLES, config, mesh=mesh)
        parts.append([found.losses, *weights(found.model)])
    for other in parts[1:]:
        for ours, theirs in zip(other, parts[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-5)

adapters = {"lora_rank": 4, "lora_dropout": 0.25, "batch_size": 8}
config = dataclasses.replace(CONFIG, **adapters)
whole, found = (finetune(load_decoder(GOLDEN), EXAMPLES, config, mesh=mesh) for mesh in (None, make_mesh(2)))
np.testing.assert_allclose(whole.losses, found.losses, rtol=2e-3)
assert np.abs(np.diff(whole.losses)).min() > 1e-4
for weight in (found.model.blocks.attention.query.kernel, found.model.blocks.attention.query.adapter.a):
    assert weight[...].addressable_shards[0].data.size == weight[...].size / 2
del whole, found, weight

from icl_theory.llm.data.batches import pad
from icl_theory.llm.model.sharding import place, place_rows
from icl_theory.llm.training.step import begin, make_step, start
from jax.sharding import NamedSharding, PartitionSpec
mesh = make_mesh(4)
graph, learner = start(load_decoder(GOLDEN), "adamw")
whole = learner.params["embedding"].size
# the step must cut them
learner = place(learner, jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), learner))
batch = place_rows(pad(EXAMPLES[:8], 8), mesh)
learner, _ = make_step(graph, "adamw", sharpness="sam", mesh=mesh)(learner, batch, 1e-3, 0.1)
for leaf in (learner.params["embedding"], learner.optimizer[0].mu["embedding"]):
    assert leaf.addressable_shards[0].data.size == whole / 4

# no device holds more than its quarter of the weights and of Adam's two moments, and what cannot be cut
del learner, leaf, parts, other, ours, theirs, batch
from flax import nnx
from icl_theory.llm.model.generate import generate
from icl_theory.llm.job.placement import in_hosts, on_devices
from icl_theory.llm.model.stacking import num_axes
decoder = load_decoder(GOLDEN, host=True)
sizes = [leaf.nbytes for leaf in weights(decoder)]
assert all(isinstance(leaf, np.ndarray) for leaf in weights(decoder))
held = []
def bytes_held(*_):
    held.append(sum(s.data.nbytes for a in jax.live_arrays() for s in a.addressable_shards if s.device.id == 0))
leaves = jax.tree_util.tree_leaves_with_path(nnx.state(decoder, nnx.Param))
uncut = sum(leaf.nbytes for path, leaf in leaves if num_axes(path, leaf) < 2)
learner = begin(decoder, "adamw", mesh=mesh)[1]  # before any step, which would cut them itself
bytes_held()
del learner
trained = finetune(decoder, EXAMPLES, dataclasses.replace(CONFIG, batch_size=8), mesh=mesh, progress=bytes_held)
assert max(held) < 1.1 * 3 * ((sum(sizes) - uncut) / 4 + uncut) + 4096, (max(held), sum(sizes))
assert len(trained.model.embedding[...].addressable_shards[0].data.ravel()) == whole / 4

# noise is measured as on one
from icl_theory.llm.training.noise_scale import measure_noise
late = np.arange(len(EXAMPLES)) % 2 == 1
alone, apart = (measure_noise(decoder, EXAMPLES, late, batches=3, mesh=m) for m in (None, mesh))
np.testing.assert_allclose(apart.signal, alone.signal, rtol=2e-3, atol=1e-6 * alone.signal.max())
np.testing.assert_allclose(apart.variance, alone.variance, rtol=2e-3)

# and it is asked as it lies
prompts = [example.tokens[:3].tolist() for example in EXAMPLES]
alone = generate(on_devices(in_hosts(trained.model), None), prompts, max_new=5)
assert generate(on_devices(decoder, mesh), prompts, max_new=5, mesh=mesh) != alone
assert generate(trained.model, prompts, max_new=5, mesh=mesh, batch_size=3) == alone
"""


def test_on_several_devices_as_on_one():
    """Weights whole or cut, AdamW padded and Muon packed with accumulation, functional SAM; adapters with dropout."""
    done = subprocess.run(
        [sys.executable, "-c", ON_FOUR, str(Path(__file__).parent)],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_weights_and_optimizer_state_are_cut():
    assert cut((30, 64), 4) == P(None, "shard")
    assert cut((64, 30), 4) == P("shard", None)
    assert cut((30, 30), 4) == cut((64,), 4) == cut((64, 64), 1) == P()
    with pytest.raises(InputError, match="must divide the number of devices"):
        make_mesh(3 * jax.device_count())


def test_what_was_found_late_is_learned_sooner_when_upsampled():
    """Ten examples of which two are upsampled four times: their losses fall faster than without."""
    config = FinetuneConfig(length=8, batch_size=8, num_steps=30, learning_rate=3e-3, schedule="constant")
    late = np.arange(10) >= 8
    indices = np.repeat(np.arange(10), icl.example_copies(late, 4.0, seed=0))
    model = load_decoder(GOLDEN)
    plain, upsampled = (
        _final_losses(finetune(model, EXAMPLES, config, indices=rows).model) for rows in (None, indices)
    )
    assert upsampled[late].mean() < plain[late].mean()


def _final_losses(model):
    from icl_theory.llm.data.batches import pad
    from icl_theory.llm.training.step import make_example_losses

    graph, params = nnx.split(model, nnx.Param)
    return np.asarray(make_example_losses(graph)(params, pad(EXAMPLES, 8)))


def test_rows_are_as_wide_as_the_longest_example_needs(tmp_path, monkeypatch):
    """Whatever the settings allow: padding costs, and changes nothing."""
    widths, ended = set(), []
    stretch = train.pad
    monkeypatch.setattr(train, "pad", lambda some, length, **more: widths.add(length) or stretch(some, length, **more))
    for length in (8, 300):
        recorder = icl.LossRecorder(tmp_path / f"{length}.zarr", ids=[str(row) for row in range(10)])
        config = FinetuneConfig(length=length, batch_size=4, num_steps=3)
        ended.append(finetune(load_decoder(GOLDEN), EXAMPLES, config, recorder=recorder, record_every=3))
    assert widths == {8, 16}
    np.testing.assert_allclose(*(one.losses for one in ended), rtol=1e-5)


def test_what_cannot_be_trained_is_refused(tmp_path):
    model = load_decoder(GOLDEN)
    for changes, said in (
        ({"examples": []}, "give at least one"),
        ({"config": FinetuneConfig(num_steps=4, warmup=5)}, "warmup = 5: the run has 4 steps"),
        ({"config": FinetuneConfig(length=7)}, "an example has 8 tokens"),
        (
            {"examples": [*EXAMPLES, Tokenized(np.array([3, 40]), np.arange(2) > 0)]},
            r"examples\[\d+\] = 'token 40': the model has 40",
        ),
        ({"indices": np.array([10])}, "rows from 0 to 9"),
        ({"indices": np.array([0.5])}, "rows from 0 to 9"),
    ):
        settings = {"examples": EXAMPLES, "config": CONFIG} | changes
        with pytest.raises(InputError, match=said):
            finetune(model, settings.pop("examples"), settings.pop("config"), **settings)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("x")
    with pytest.raises(InputError, match="other things"):
        finetune(model, EXAMPLES, CONFIG, folder=tmp_path / "other")


def test_a_folder_of_other_settings_is_refused(tmp_path, monkeypatch):
    model, short = load_decoder(GOLDEN), FinetuneConfig(length=8, batch_size=4, num_steps=1)
    finetune(model, EXAMPLES, short, folder=tmp_path / "run")
    with pytest.raises(InputError, match="num_steps was 1, now 2"):
        finetune(model, EXAMPLES, FinetuneConfig(length=8, batch_size=4, num_steps=2), folder=tmp_path / "run")
    other = load_decoder(GOLDEN)
    other.final_norm.scale[...] = other.final_norm.scale[...] + 1.0
    rows = np.arange(10)
    for changed in (  # another set of the same size, other examples, another start
        lambda: finetune(model, EXAMPLES, short, indices=np.array([*rows[:9], 0]), folder=tmp_path / "run"),
        lambda: finetune(model, EXAMPLES[::-1], short, folder=tmp_path / "run"),
        lambda: finetune(other, EXAMPLES, short, folder=tmp_path / "run"),
    ):
        with pytest.raises(InputError, match="data was"):
            changed()
    monkeypatch.setattr("icl_theory.llm.training.train.LAYOUT", "layer by layer")  # as another version keeps weights
    with pytest.raises(InputError, match="weights was stacked by layer, now layer by layer"):
        finetune(model, EXAMPLES, short, folder=tmp_path / "run")


def test_bad_settings_leave_no_folder(tmp_path):
    with pytest.raises(InputError, match="preconditioner"):
        FinetuneConfig(length=8, optimizer="muon", sharpness="sam", preconditioner="past")
    with pytest.raises(InputError, match="length"):
        finetune(load_decoder(GOLDEN), EXAMPLES, FinetuneConfig(length=4), folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 3, "accumulate": 2}, "it must divide batch_size"),
        ({"optimizer": "sgd"}, "give one of adamw, muon"),
        ({"sharpness": "x"}, "give one of none"),
        ({"schedule": "step"}, "give one of cosine"),
        ({"learning_rate": -1.0}, "at least 0"),
        ({"length": 1}, "at least 2"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        FinetuneConfig(**settings)
