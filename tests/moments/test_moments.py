"""Moments of prompts: the same losses and trajectories as going through every prompt, built from any pieces."""

import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import assert_close
from hypothesis import given
from hypothesis import strategies as st

from icl_theory import (
    CubicFeatureMLP,
    EffectiveTensor,
    InputError,
    MergedAttention,
    Moments,
    MomentsLoss,
    MomentsMixture,
    PrecisionWarning,
    Prompts,
    SeparateAttention,
    TaskDistribution,
    TaskMixture,
    at_context_lengths,
    compress,
    concatenate_prompts,
    cubic_features,
    example_learning_times,
    full_population_moments,
    gd,
    load_moments,
    make_loss,
    mixture_moments,
    population_moments,
    prompt_moments,
    sam,
    sample_prompt_chunks,
    sample_prompts,
    split_model,
    train,
    train_many,
)
from icl_theory.models.cubic_features import num_features

DIM = 3
GROUPS = TaskMixture.create(
    [
        TaskDistribution.create([0.5, 0.3, 0.2], num_context=6, noise_std=0.3),
        TaskDistribution.create([0.2, 0.3, 0.5], num_context=4, count_query=True),
    ],
    [0.6, 0.4],
).with_fixed_task(0.3, [0.5, -1.0, 0.2])
PROMPTS = sample_prompts(GROUPS, 60, key=jax.random.key(1))
WEIGHTED = PROMPTS._replace(weight=jnp.linspace(0.0, 3.0, 60))
MODELS = {
    "merged": lambda **s: MergedAttention(DIM, 4, **s),
    "rank 1": lambda **s: SeparateAttention(DIM, 4, **s),
    "rank 2": lambda **s: SeparateAttention(DIM, 3, rank=2, **s),
    "mlp": lambda **s: CubicFeatureMLP(DIM, 4, **s),
}
LINEAR = [(name, blocks) for name in MODELS for blocks in ("reduced", "full") if (name, blocks) != ("mlp", "full")]


def make(name, blocks="reduced", scale=0.3):
    settings = {"init_scale": scale, "rngs": nnx.Rngs(0)}
    return MODELS[name](**settings) if name == "mlp" else MODELS[name](**settings, blocks=blocks)


@pytest.mark.parametrize(("name", "blocks"), LINEAR)
def test_predictions_are_linear_in_the_features(name, blocks):
    model = make(name, blocks)
    features = cubic_features(PROMPTS, blocks=blocks)
    assert features.shape == (60, num_features(DIM, blocks))
    assert_close(features @ model.effective_tensor(), model(PROMPTS))


def test_reduced_features_stand_first():
    assert_close(cubic_features(PROMPTS, blocks="full")[:, : DIM**2], cubic_features(PROMPTS, blocks="reduced"))


@pytest.mark.parametrize(("name", "blocks"), LINEAR)
@pytest.mark.parametrize("optimizer", [gd, sam])
@pytest.mark.parametrize("data", ["plain", "weighted, several lengths"])
def test_trajectories_on_moments_and_on_prompts_agree(name, blocks, optimizer, data):
    """To 1e-10 of the first loss over 3000 steps. η and ρ are below the onset of SAM's oscillation, beyond which any
    rounding grows (notes §6)."""
    prompts = PROMPTS if data == "plain" else at_context_lengths(WEIGHTED, [1, 2, 4])
    extra = {"rho": 0.002} if optimizer is sam else {}
    losses, weights = [], []
    for engine in ("moments", "prompts"):
        loss, params = make_loss(make(name, blocks), prompts, engine=engine)
        settings = {"learning_rate": 0.01, **extra}
        run = train(loss, params, optimizer=optimizer, hyperparameters=settings, num_steps=3000, num_snapshots=31)
        losses.append(run.loss)
        weights.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(run.params)]))
    assert losses[0][-1] < 0.9 * losses[0][0]
    assert np.abs(losses[0] - losses[1]).max() < 1e-10 * losses[0][0]
    assert np.abs(weights[0] - weights[1]).max() < 1e-10 * np.abs(weights[0]).max()


def test_moments_are_the_default_and_softmax_goes_through_prompts():
    assert isinstance(make_loss(make("merged"), PROMPTS)[0], MomentsLoss)
    softmax = MergedAttention(DIM, 2, scores="softmax", rngs=nnx.Rngs(0))
    assert not isinstance(make_loss(softmax, PROMPTS)[0], MomentsLoss)
    for data, settings in ((prompt_moments(PROMPTS), {}), (PROMPTS, {"engine": "moments"}), (GROUPS, {})):
        with pytest.raises(InputError, match="softmax on prompts"):
            make_loss(softmax, data, **settings)


@given(st.sampled_from([1, 7, 64]), st.integers(1, 59), st.sampled_from(["reduced", "full"]))
def test_pieces_add_up(chunk_size, cut, blocks):
    whole = prompt_moments(WEIGHTED, blocks=blocks)
    parts = [jax.tree.map(lambda leaf, s=s: np.asarray(leaf)[s], WEIGHTED) for s in (slice(0, cut), slice(cut, None))]
    apart = prompt_moments(parts[0], blocks=blocks) + prompt_moments(parts[1], blocks=blocks, chunk_size=chunk_size)
    streamed = prompt_moments(iter(parts), blocks=blocks, chunk_size=chunk_size)
    for found in (apart, streamed):
        assert (found.count, found.dim, found.blocks) == (60, DIM, blocks)
        for field in ("gram", "cross", "energy", "weight"):
            assert_close(getattr(found, field), getattr(whole, field), rtol=1e-13)


def test_moments_by_hand_and_upsampling_is_a_factor():
    found = prompt_moments(WEIGHTED)
    features, weights = np.asarray(cubic_features(PROMPTS, blocks="full")), np.asarray(WEIGHTED.weight)
    assert_close(found.gram, sum(w * np.outer(f, f) for w, f in zip(weights, features, strict=True)), rtol=1e-13)
    assert_close(found.cross, (weights * np.asarray(PROMPTS.y_query)) @ features, rtol=1e-13)
    assert_close(found.energy, weights @ np.square(PROMPTS.y_query))
    assert_close(found.weight, weights.sum())
    early, late = (
        prompt_moments(jax.tree.map(lambda leaf, s=s: leaf[s], PROMPTS)) for s in (slice(0, 30), slice(30, 60))
    )
    upsampled = prompt_moments(PROMPTS._replace(weight=jnp.where(jnp.arange(60) < 30, 1.0, 3.0)))
    assert_close((early + 3.0 * late).mean().gram, upsampled.mean().gram)
    copies = concatenate_prompts([PROMPTS, *[jax.tree.map(lambda leaf: leaf[30:], PROMPTS)] * 2])
    assert_close(prompt_moments(copies).mean().cross, upsampled.mean().cross)


def test_float64_sums_whatever_the_precision_of_the_session():
    expected = prompt_moments(PROMPTS)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), PROMPTS)
        assert single.x.dtype == np.float32
        found = prompt_moments(single)
        both = found + found
        loss, params = make_loss(SeparateAttention(DIM, 2, rngs=nnx.Rngs(0)), found)
        assert loss.moments.gram.dtype == params["value"].dtype == np.float32
    assert found.gram.dtype == both.gram.dtype == np.float64
    assert_close(found.gram, expected.gram, rtol=1e-6)
    exact = prompt_moments(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), single))
    assert_close(found.gram, exact.gram, rtol=1e-14)


def test_a_stream_is_the_same_data(key):
    chunks = list(sample_prompt_chunks(GROUPS, 100, key=key, chunk_size=16))
    assert max(len(chunk.y_query) for chunk in chunks) == 16
    together = concatenate_prompts(chunks)
    whole = sample_prompts(GROUPS, 100, key=key)
    assert np.array_equal(np.bincount(together.group), np.bincount(whole.group))
    assert len(np.unique(np.asarray(together.y_query))) == 100
    assert_close(prompt_moments(iter(chunks)).gram, prompt_moments(together).gram)


def test_saved_and_reloaded(tmp_path):
    found = prompt_moments(PROMPTS)
    found.save(tmp_path / "moments.npz")
    again = load_moments(tmp_path / "moments.npz")
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(again), strict=True))
    assert (again.dim, again.blocks) == (DIM, "full")
    with pytest.raises(InputError, match="exists"):
        found.save(tmp_path / "moments.npz")
    with pytest.raises(InputError, match="cannot be written"):
        found.save(tmp_path / "nowhere" / "moments.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "moments.npz").read_bytes()[:500])
    np.savez(tmp_path / "other.npz", gram=np.eye(2))
    with np.load(tmp_path / "moments.npz") as stored:
        np.savez(tmp_path / "wrong.npz", **(dict(stored) | {"dim": 5}))
    for name, words in (("none", "read"), ("cut", "damaged"), ("other", "convention"), ("wrong", "shape")):
        with pytest.raises(InputError, match=words):
            load_moments(tmp_path / f"{name}.npz")


def test_bad_input_is_named():
    broken = PROMPTS._replace(x=PROMPTS.x.at[41, 0, 0].set(jnp.inf))
    pieces = [jax.tree.map(lambda leaf, s=s: leaf[s], broken) for s in (slice(0, 30), slice(30, 60))]
    other = sample_prompts(TaskMixture.single([1.0, 0.5], num_context=4), 5, key=jax.random.key(0))
    model = make("merged", "full")
    for words, call in (
        (r"prompts\.x\[41\]", lambda: prompt_moments(broken)),
        (r"prompts\.x\[41\]", lambda: prompt_moments(iter(pieces))),
        (r"prompts\.x\[0\].*padding", lambda: prompt_moments(PROMPTS._replace(num_context=jnp.full(60, 3)))),
        ("0 prompts", lambda: prompt_moments(iter([]))),
        ("0 prompts", lambda: prompt_moments(jax.tree.map(lambda leaf: leaf[:0], PROMPTS))),
        (r"weight\[2\]", lambda: prompt_moments(PROMPTS._replace(weight=jnp.ones(60).at[2].set(-1.0)))),
        (r"weight\[2\]", lambda: make_loss(model, PROMPTS._replace(weight=jnp.ones(60).at[2].set(jnp.nan)))),
        (r"moments\.weight", lambda: make_loss(model, PROMPTS._replace(weight=jnp.zeros(60)))),
        ("all zero", lambda: make_loss(model, PROMPTS._replace(weight=jnp.zeros(60)), engine="prompts")),
        ("chunk_size", lambda: compress(PROMPTS).moments(chunk_size=-1)),
        ("blocks", lambda: cubic_features(PROMPTS, blocks="redcued")),
        (r"prompts\.weight = 'shape", lambda: prompt_moments(PROMPTS._replace(weight=jnp.ones(3)))),
        ("dimension 2", lambda: prompt_moments(iter([PROMPTS, other]))),
        ("dimension 2", lambda: make_loss(model, prompt_moments(other))),
        (r"moments\.dim", lambda: prompt_moments(PROMPTS) + prompt_moments(other)),
        (r"moments\.blocks", lambda: prompt_moments(PROMPTS) + prompt_moments(PROMPTS, blocks="reduced")),
        (r"moments\.blocks", lambda: make_loss(model, prompt_moments(PROMPTS, blocks="reduced"))),
        (r"moments\.weight", lambda: make_loss(model, 0.0 * prompt_moments(PROMPTS))),
        ("factor", lambda: -1.0 * prompt_moments(PROMPTS)),
        ("holds no prompts", lambda: make_loss(model, prompt_moments(PROMPTS), engine="prompts")),
        ("engine", lambda: make_loss(model, PROMPTS, engine="fast")),
        ("lengths", lambda: at_context_lengths(PROMPTS, [5])),
        ("lengths", lambda: at_context_lengths(PROMPTS, [])),
        ("parts", lambda: concatenate_prompts([])),
        ("parts", lambda: concatenate_prompts([PROMPTS, other])),
        ("weight = 'shape", lambda: compress(PROMPTS).moments(np.ones(3))),
        ("tensors", lambda: compress(PROMPTS).losses(np.ones(4))),
        ("shares", lambda: mixture_moments([prompt_moments(PROMPTS)] * 2, [0.5, 0.6])),
        ("shares", lambda: mixture_moments([prompt_moments(PROMPTS)] * 2, [1.0])),
        ("losses", lambda: example_learning_times(np.arange(2.0), np.asarray([[1.0], [np.nan]]))),
        ("remaining", lambda: example_learning_times(np.arange(2.0), np.ones((2, 1)), remaining=1.0)),
    ):
        with pytest.raises(InputError, match=words):
            call()


def test_single_precision_that_loses_the_digits_is_said():
    steep = TaskMixture.single([1.0, 1e-3], num_context=500)
    with jax.enable_x64(False):
        prompts = sample_prompts(steep, 400, key=jax.random.key(0))
        model = SeparateAttention(2, 2, rngs=nnx.Rngs(0))
        with pytest.warns(PrecisionWarning, match="condition number"):
            make_loss(model, prompts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_loss(SeparateAttention(2, 2, rngs=nnx.Rngs(0)), prompts)  # float64 has digits enough
    assert prompt_moments(prompts, blocks="reduced").condition_number() > 1e7


def test_single_precision_is_judged_by_the_exact_population():
    steep = TaskMixture.single([1.0, 1e-3], num_context=500)
    long = TaskMixture.single([1.0, 0.5], num_context=60_000)
    exact = full_population_moments(long)
    with jax.enable_x64(False):
        single = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float32)), steep)
        for blocks in ("reduced", "full"):
            with pytest.warns(PrecisionWarning, match="is "):
                make_loss(MergedAttention(2, 2, blocks=blocks, rngs=nnx.Rngs(0)), single)
        single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), long)
        again = full_population_moments(single)
    assert again.gram.dtype == np.float64
    assert_close(again.gram, exact.gram, rtol=1e-6)
    assert np.all(np.diagonal(again.gram) > 0)


def test_moments_stay_in_float64_and_add_up_by_sum():
    found = prompt_moments(PROMPTS)
    with jax.enable_x64(False):
        scaled, total = jnp.asarray(3.0) * found, sum([found, found])
    assert scaled.gram.dtype == total.gram.dtype == np.float64
    assert_close(scaled.gram, 3.0 * found.gram)
    assert_close(total.cross, 2.0 * found.cross)


def test_examples_give_every_loss_without_the_prompts():
    model = make("rank 1", "full", scale=0.5)
    examples = compress(WEIGHTED, chunk_size=7)
    loss, params = make_loss(model, examples)
    run = train(
        loss,
        params,
        hyperparameters={"learning_rate": 0.05},
        num_steps=800,
        num_snapshots=9,
        track=EffectiveTensor(loss.graphdef),
    )
    losses = examples.losses(run.tracked)
    assert losses.shape == (9, 60)
    assert_close(losses[0], jnp.square(PROMPTS.y_query - model(PROMPTS)), rtol=1e-12)
    weights = np.asarray(WEIGHTED.weight)
    assert_close(losses @ (weights / weights.sum()), run.loss, rtol=1e-12)
    again = examples.moments(np.arange(60.0))
    assert_close(again.gram, prompt_moments(PROMPTS._replace(weight=jnp.arange(60.0))).gram, rtol=1e-13)
    times = example_learning_times(run.time, losses)
    learned = np.isfinite(times)
    assert 0 < learned.sum() < 60
    for example in np.flatnonzero(learned)[:5]:
        curve = np.asarray(losses[:, example])
        crossed = np.argmax(curve <= 0.5 * curve[0])
        assert run.time[crossed - 1] < times[example] <= run.time[crossed]


def test_full_population_contains_the_reduced_one_and_trains_like_it():
    full, reduced = full_population_moments(GROUPS), population_moments(GROUPS)
    tensor = jax.random.normal(jax.random.key(0), (9,))
    assert_close(full.restricted("reduced").product(tensor), reduced.product(tensor))
    assert_close(full.restricted("reduced").cross, reduced.cross)
    assert_close(full.energy, reduced.energy)
    assert np.linalg.eigvalsh(full.gram).min() > 0
    plain = TaskMixture.single([0.5, 0.3, 0.2], num_context=6, noise_std=0.3)  # no fixed task: wrong blocks stay zero
    loss, params = make_loss(make("merged"), plain)
    wide_loss, wide = make_loss(make("merged", "full"), plain)
    value = jnp.zeros_like(wide["value"]).at[:, DIM].set(params["value"])
    merged = jnp.zeros_like(wide["merged"]).at[:, :DIM, :DIM].set(params["merged"])
    settings = {"hyperparameters": {"learning_rate": 0.05}, "num_steps": 500}
    run, wide_run = train(loss, params, **settings), train(wide_loss, {"value": value, "merged": merged}, **settings)
    assert_close(wide_run.loss, run.loss, rtol=1e-12)
    assert np.abs(wide_run.params["value"][:, :DIM]).max() < 1e-14


@pytest.mark.parametrize("count_query", [False, True])
def test_population_moments_are_exact_averages(count_query):
    """A Gauss–Hermite rule of n points gives exact means of polynomials up to degree 2n − 1, here 5 (queries: 7)."""
    group = TaskDistribution.create(
        [0.7, 0.3],
        num_context=2,
        noise_std=0.8,
        count_query=count_query,
        task_eigenvalues=[0.5, 2.0],
        task_mean=np.asarray([0.3, -0.4]),
        basis=np.asarray([[0.6, -0.8], [0.8, 0.6]]),
    )
    rules = [np.polynomial.hermite_e.hermegauss(n) for n in [3] * 8 + [4] * 2]
    grid = np.stack(np.meshgrid(*(points for points, _ in rules), indexing="ij"), axis=-1).reshape(-1, 10)
    weight = np.prod(np.stack(np.meshgrid(*(w for _, w in rules), indexing="ij"), axis=-1), axis=-1).ravel()
    root, task_root = (np.linalg.cholesky(matrix) for matrix in (group.covariance, group.task_covariance))
    x, query = grid[:, :4].reshape(-1, 2, 2) @ root.T, grid[:, 8:] @ root.T
    task = group.task_mean + grid[:, 4:6] @ task_root.T
    y = np.einsum("pnd,pd->pn", x, task) + 0.8 * grid[:, 6:8]
    prompts = Prompts.from_arrays(x, y, query, np.sum(query * task, axis=1), weight=weight, count_query=count_query)
    exact = prompt_moments(prompts).mean()
    found = full_population_moments(TaskMixture.create([group], [1.0]))
    for name in ("gram", "cross", "energy"):
        assert_close(getattr(found, name), getattr(exact, name), rtol=1e-12)
    reduced = population_moments(TaskMixture.create([group], [1.0]))
    assert_close(reduced.product(jnp.eye(4)[1]), exact.gram[:4, 1], rtol=1e-12)
    assert_close(reduced.cross, exact.cross[:4], rtol=1e-12)


def test_runs_may_differ_in_their_shares():
    parts = [prompt_moments(jax.tree.map(lambda leaf, s=s: leaf[s], PROMPTS)) for s in (slice(0, 30), slice(30, 60))]
    graphdef, params = split_model(make("merged", "full"))
    shares = np.asarray([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0]])
    many = train_many(
        MomentsLoss(graphdef, mixture_moments(parts, shares)),
        jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), params),
        hyperparameters={"learning_rate": 0.02},
        num_steps=300,
        num_snapshots=5,
        loss_axes=MomentsLoss(None, MomentsMixture(None, None, None, 0)),
    )
    for index, (early, late) in enumerate(shares):
        loss, _ = make_loss(make("merged", "full"), early * parts[0].mean() + late * parts[1].mean())
        one = train(loss, params, hyperparameters={"learning_rate": 0.02}, num_steps=300, num_snapshots=5)
        assert_close(many.loss[index], one.loss, rtol=1e-12)


def test_the_loss_can_be_differentiated_by_its_data_and_twice():
    loss, params = make_loss(make("merged", "full"), PROMPTS)
    slow, _ = make_loss(make("merged", "full"), PROMPTS, engine="prompts")
    for ours, theirs in zip(
        jax.tree.leaves(jax.hessian(loss)(params)), jax.tree.leaves(jax.hessian(slow)(params)), strict=True
    ):
        assert_close(ours, theirs, rtol=1e-11)
    tensor = jnp.asarray(make("merged", "full").effective_tensor())
    by_gram = jax.grad(lambda gram: loss._replace(moments=loss.moments.replace(gram=gram))(params))(loss.moments.gram)
    assert_close(by_gram, jnp.outer(tensor, tensor), rtol=1e-12)


def test_runs_that_share_moments_make_one_matrix_product_a_step():
    """In the compiled program: M (F, F) times all tensors (F, runs), once in the step and once in the snapshot."""
    from icl_theory.training.compiled_loop import Program, run_chunk, start

    runs, size = 24, num_features(DIM, "full")
    graphdef, params = split_model(make("merged", "full"))
    loss, _ = make_loss(make("merged", "full"), PROMPTS)
    starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * runs, axis=-1), params)
    rates = {"learning_rate": jnp.full(runs, 0.1)}
    program = Program(loss, EffectiveTensor(graphdef), gd, many=True)
    block = start(program, starts, rates)
    compiled = run_chunk.lower(program, block, np.int64(0), np.arange(4)).compile().as_text()
    products = [line for line in compiled.splitlines() if " dot(" in line]
    large = [line for line in products if f"f64[{size},{runs}]" in line.split("dot(")[0]]
    assert len(large) == 2
    batched = [line for line in products if "batch_dims={" in line and str(size) in line]
    assert not batched


DEVICES = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, PartitionSpec
import icl_theory as icl
assert len(jax.devices()) == 4
prompts = icl.sample_prompts(icl.TaskMixture.single([0.5, 0.3, 0.2], num_context=6), 40, key=jax.random.key(0))
mesh = Mesh(np.asarray(jax.devices()), ("data",))
sums = jax.shard_map(
    lambda part: jax.lax.psum(icl.moment_sums(part), "data"),
    mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec(),
)(prompts)
whole = icl.prompt_moments(prompts)
assert np.allclose(sums.gram, whole.gram, rtol=1e-13) and sums.count == whole.count == 40
print("same")
"""
HALF = """
import sys, jax
jax.config.update("jax_enable_x64", True)
import icl_theory as icl
prompts = icl.sample_prompts(icl.TaskMixture.single([0.5, 0.3, 0.2], num_context=6), 40, key=jax.random.key(0))
half = int(sys.argv[1])
icl.prompt_moments(jax.tree.map(lambda leaf: leaf[20 * half : 20 * half + 20], prompts)).save(sys.argv[2])
"""


def test_moments_of_several_devices_add_up(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    done = subprocess.run([sys.executable, "-c", DEVICES], capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr


def test_moments_of_several_processes_add_up(tmp_path):
    paths = [tmp_path / f"{half}.npz" for half in (0, 1)]
    workers = [subprocess.Popen([sys.executable, "-c", HALF, str(i), str(path)]) for i, path in enumerate(paths)]
    assert [worker.wait() for worker in workers] == [0, 0]
    together: Moments = load_moments(paths[0]) + load_moments(paths[1])
    prompts = sample_prompts(TaskMixture.single([0.5, 0.3, 0.2], num_context=6), 40, key=jax.random.key(0))
    assert_close(together.gram, prompt_moments(prompts).gram, rtol=1e-13)
