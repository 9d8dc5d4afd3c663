"""Loss records: every form holds the same, grows without loss, and what is wrong in one is named."""

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import xarray as xr
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.upsampling.loss_record import LossRecord, match_ids
from icl_theory.upsampling.record_files import SUFFIXES, LossRecorder, load_loss_record, save_loss_record

STEPS = np.array([0.0, 10.0, 250.0])
LOSSES = np.array([[1.0, 2.0, 0.5, 3.0], [0.75, 2.0, 0.25, 1.5], [0.1, 1.9, 1e-9, 0.125]])
IDS = ["b", "007", 'a, "quoted"', "ünï"]


def assert_same(record, steps=STEPS, losses=LOSSES, ids=IDS):
    assert record.steps.tolist() == list(steps)
    np.testing.assert_allclose(record.losses, losses, rtol=1e-6)
    assert (record.ids if ids is None else record.ids.to_pylist()) == ids


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("ids", [IDS, None, ["3", "1", "0", "2"]])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_form_holds_the_same(tmp_path, suffix, ids, dtype):
    record = LossRecord(STEPS, LOSSES.astype(dtype), ids)
    save_loss_record(record, tmp_path / f"losses{suffix}")
    found = load_loss_record(tmp_path / f"losses{suffix}")
    assert_same(found, ids=ids)
    assert suffix == ".csv" or found.losses.dtype == dtype
    with pytest.raises(InputError, match="it exists"):
        save_loss_record(record, tmp_path / f"losses{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"losses{suffix}"]


def test_numbers_and_texts_are_the_same_ids():
    whole, texts = (LossRecord(STEPS, LOSSES, ids) for ids in (np.arange(4), ["0", "1", "2", "3"]))
    assert whole.ids.equals(texts.ids)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_row_for_each_loss_in_any_order(tmp_path, suffix):
    rows = [
        (step, i, loss) for step, line in zip(STEPS, LOSSES, strict=True) for i, loss in zip(IDS, line, strict=True)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    columns = list(zip(*(rows[place] for place in order), strict=True))
    table = pa.table({"loss": columns[2], "step": columns[0], "id": columns[1]})
    path = tmp_path / f"long{suffix}"
    (pyarrow.csv.write_csv if suffix == ".csv" else pyarrow.parquet.write_table)(table, path)
    found = load_loss_record(path)
    data_order = match_ids(found, LossRecord(STEPS, LOSSES, IDS).ids, where="id")
    assert_close(found.arranged(data_order).losses, LOSSES)


def test_columns_may_stand_in_any_order(tmp_path):
    table = pa.table({"250": LOSSES[2], "id": IDS, "0": LOSSES[0], "10": LOSSES[1]})
    pyarrow.parquet.write_table(table, tmp_path / "wide.parquet")
    assert_same(load_loss_record(tmp_path / "wide.parquet"))


def test_data_of_another_order_find_their_losses():
    record = LossRecord(STEPS, LOSSES, IDS)
    shuffled = ["ünï", "b", 'a, "quoted"', "007"]
    order = match_ids(record, pa.array(shuffled, pa.large_string()), where="id")
    np.testing.assert_array_equal(record.arranged(order).losses, LOSSES[:, [3, 0, 2, 1]])


def test_a_record_grows_and_is_readable_meanwhile(tmp_path):
    recorder = LossRecorder(tmp_path / "losses.zarr", IDS)
    for count, (step, losses) in enumerate(zip(STEPS, LOSSES, strict=True), start=1):
        recorder.add(step, losses)
        assert_same(load_loss_record(tmp_path / "losses.zarr"), STEPS[:count], LOSSES[:count])
    assert xr.open_zarr(tmp_path / "losses.zarr", consolidated=False).losses.dims == ("checkpoint", "example")


def test_a_resumed_run_replaces_what_came_after(tmp_path):
    recorder = LossRecorder(tmp_path / "losses.zarr")
    for step, losses in zip(STEPS, LOSSES, strict=True):
        recorder.add(step, losses)
    again = LossRecorder(tmp_path / "losses.zarr")
    with pytest.raises(InputError, match="would replace all of it"):
        again.add(0, LOSSES[0])  # another run
    assert_same(load_loss_record(tmp_path / "losses.zarr"), ids=None)
    again.add(10, LOSSES[2])
    assert_same(load_loss_record(tmp_path / "losses.zarr"), [0, 10], LOSSES[[0, 2]], None)


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path):
    """As a kill leaves it: the losses are there, their step is not."""
    import zarr

    recorder = LossRecorder(tmp_path / "losses.zarr")
    recorder.add(0, LOSSES[0])
    group = zarr.open_group(tmp_path / "losses.zarr", mode="r+")
    group["losses"].resize((2, 4))
    assert_same(load_loss_record(tmp_path / "losses.zarr"), [0], LOSSES[:1], None)
    group["steps"].resize((2,))
    assert_same(load_loss_record(tmp_path / "losses.zarr"), [0], LOSSES[:1], None)
    LossRecorder(tmp_path / "losses.zarr").add(10, LOSSES[1])
    assert_same(load_loss_record(tmp_path / "losses.zarr"), STEPS[:2], LOSSES[:2], None)


def test_a_recorder_keeps_to_its_examples(tmp_path):
    LossRecorder(tmp_path / "losses.zarr", IDS).add(0, LOSSES[0])
    with pytest.raises(InputError, match="other examples"):
        LossRecorder(tmp_path / "losses.zarr", IDS[::-1])
    with pytest.raises(InputError, match="other examples"):
        LossRecorder(tmp_path / "losses.zarr")
    with pytest.raises(InputError, match=r"end it in \.zarr"):
        LossRecorder(tmp_path / "losses.npz")
    unnamed = LossRecorder(tmp_path / "unnamed.zarr")
    unnamed.add(0, LOSSES[0])
    with pytest.raises(InputError, match="the record holds 4 examples"):
        unnamed.add(1, LOSSES[0, :3])


def test_our_own_trainer_records(mixture, key):
    from flax import nnx

    examples = icl.compress(icl.sample_prompts(mixture, 50, key=key), blocks="reduced")
    loss, params = icl.make_loss(icl.SeparateAttention(4, 4, rngs=nnx.Rngs(params=1)), examples)
    run = icl.train(
        loss, params, hyperparameters={"learning_rate": 0.02}, num_steps=20, track=icl.EffectiveTensor(loss.graphdef)
    )
    record = icl.LossRecord.from_run(run, examples)
    assert record.steps.tolist() == run.step.tolist()
    assert_close(record.losses.mean(axis=1), run.loss, rtol=1e-9)


@pytest.mark.parametrize(
    ("steps", "losses", "ids", "said"),
    [
        ([0, 1, 1], LOSSES, None, "they must ascend"),
        ([[0, 1]], LOSSES, None, "shape (T,)"),
        ([0, 1, np.inf], LOSSES, None, "finite numbers"),
        ([-1, 0, 1], LOSSES, None, "from 0"),
        (["a"], LOSSES, None, "give numbers"),
        ([0, 1], LOSSES, None, "give shape (2, P)"),
        ([0, 1, 2], [["x"]] * 3, None, "give real numbers"),
        ([0, 1, 2], np.where(LOSSES == 1.5, np.nan, LOSSES), IDS, "loss of 'ünï' at step 1 = nan"),
        ([0, 1, 2], np.where(LOSSES == 1.9, -1, LOSSES), None, "loss of row 1 at step 2 = -1.0"),
        (STEPS, LOSSES, ["a", "b", "a", "c"], "'a': it occurs 2 times"),
        (STEPS, LOSSES, ["a", "b"], "2 of them"),
        (STEPS, LOSSES, ["a", None, "b", "c"], "none in row 1"),
        (STEPS, LOSSES, [0.5, 1.5, 2.5, 3.5], "whole numbers or texts"),
        (STEPS, LOSSES, ["a", 1, "b", "c"], "a mixture of kinds"),
    ],
)
def test_bad_records_are_refused_in_words(steps, losses, ids, said):
    with pytest.raises(InputError) as error:
        LossRecord(steps, losses, ids)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (["b", "007", "x", "ünï"], "'x': it and 0 more of 4 have no losses"),
        (["b", "b", "007", "ünï"], "it occurs 2 times"),
        (["b", "007", "ünï"], "it and 0 more of 4 are no examples of the data"),
    ],
)
def test_ids_that_do_not_match_are_named(data, said):
    with pytest.raises(InputError) as error:
        match_ids(LossRecord(STEPS, LOSSES, IDS), pa.array(data, pa.large_string()), where="field id")
    assert said in str(error.value)


def write(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "0", "ends in .npz, .zarr"),
        ("a.csv", "", "cannot be read"),
        ("a.csv", "id,0,10\nx,1,2\ny,1\n", "cannot be read"),
        ("a.csv", "id,0,ten\nx,1,2\n", "named by its step"),
        ("a.csv", "id\nx\n", "none named by a step"),
        ("a.csv", "id,0,10\nx,1,one\n", "give numbers"),
        ("a.csv", "id,0,10\nx,1,\n", "loss of 'x' at step 10 = nan"),
        ("a.csv", "id,0,0.0\nx,1,1\n", "they must ascend"),
        ("a.csv", "id,step,loss\nx,0,1\nx,0,1\n", "there 2 times"),
        ("a.csv", "id,step,loss\nx,0,1\nx,5,1\ny,0,1\n", "loss of 'y' at step 5 = 'missing'"),
        ("a.parquet", "PAR1", "cannot be read"),
        ("a.npz", "PK", "cannot be read"),
        ("a.zarr", "x", "cannot be read"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path, name, content, said):
    with pytest.raises(InputError) as error:
        load_loss_record(write(tmp_path / name, content))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_loss_that_is_there_257_times(tmp_path):
    table = pa.table({"step": [0.0] * 257, "id": ["x"] * 257, "loss": [1.0] * 257})
    pyarrow.parquet.write_table(table, tmp_path / "many.parquet")
    with pytest.raises(InputError, match="there 257 times"):
        load_loss_record(tmp_path / "many.parquet")


def test_arrays_that_lack_something(tmp_path):
    for name, arrays, said in (
        ("a.npz", {"losses": LOSSES}, "steps missing"),
        ("b.npz", {"steps": STEPS, "losses": LOSSES, "ids": np.array(IDS, object)}, "dtype=str"),
    ):
        np.savez(tmp_path / name, **arrays)
        with pytest.raises(InputError, match=said):
            load_loss_record(tmp_path / name)
    np.save(tmp_path / "single.npy", LOSSES)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(InputError, match="single array"):
        load_loss_record(tmp_path / "single.npz")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_loss_record(tmp_path / "folder.zarr")
    with pytest.raises(InputError, match="no such file"):
        load_loss_record(tmp_path / "none.npz")


@given(st.binary(max_size=200), st.sampled_from(SUFFIXES[:1] + SUFFIXES[2:]))
def test_any_bytes_end_in_words(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        load_loss_record(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_gaps_are_accepted_on_request_and_stay_gaps_in_files(tmp_path, suffix):
    losses = np.array([[np.nan, 3.0, np.nan, 1.0], [2.0, np.inf, np.nan, 0.5], [1.0, 1.0, np.nan, 0.2]])
    record = icl.LossRecord([0, 5, 9], losses, ["a", "b", "c", "d"], gaps=True)
    np.testing.assert_array_equal(record.losses, [[2, 3, 0, 1], [2, 3, 0, 0.5], [1, 1, 0, 0.2]])
    np.testing.assert_array_equal(record.gaps, ~np.isfinite(losses))
    turned = record.for_ids(["d", "c", "b", "a"])
    np.testing.assert_array_equal(turned.gaps, record.gaps[:, ::-1])
    icl.save_loss_record(record, tmp_path / f"gaps{suffix}")
    with pytest.raises(InputError, match="step 0 = nan"):
        icl.load_loss_record(tmp_path / f"gaps{suffix}")
    read = icl.load_loss_record(tmp_path / f"gaps{suffix}", gaps=True)
    np.testing.assert_array_equal(read.gaps, record.gaps)
    np.testing.assert_array_equal(read.losses[:, record.gaps.sum(axis=0) < 3], record.losses[:, [0, 1, 3]])
    assert icl.LossRecord([0, 5], losses[1:, 3:], gaps=True).gaps is None
    with pytest.raises(InputError, match="not negative"):
        icl.LossRecord([0, 5, 9], -losses, gaps=True)
