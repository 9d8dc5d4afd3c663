"""Random starts of rank-one heads: the escape of one, the cascade, and when a learned head takes further features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.integrate import solve_ivp

import icl_theory as icl
from icl_theory.errors import InputError
from icl_theory.theory import cascade_steps
from icl_theory.theory.cascade_flow import HeadFlow
from icl_theory.theory.cascade_steps import Cascade, integrate_heads, sample_heads
from icl_theory.theory.head_escape import _Head, escape_time
from icl_theory.theory.head_stability import invasion_rate, keeps_out
from icl_theory.theory.stabilised_steps import STABLE, stabilised_step

FOUR = icl.find_features(icl.TaskMixture.single([0.4, 0.3, 0.2, 0.1], num_context=31))
H, D = 5, 4


def starts(count, scale, seed=0):
    """Values of standard deviation `scale`, keys and queries of half of it."""
    draw = np.random.default_rng(seed)
    return tuple(
        scale * share * draw.normal(size=(count, *shape)) for share, shape in ((1, (H,)), (0.5, (H, D)), (0.5, (H, D)))
    )


def trained(mixture, heads, rate, duration, rho=0.0):
    """Times at which strengths reach half their optimum in training, (runs, D)."""
    model = icl.SeparateAttention(heads[1].shape[-1], heads[0].shape[-1], rngs=nnx.Rngs(0))
    loss, _ = icl.make_loss(model, mixture)
    features = icl.find_features(mixture)
    value, key, query = heads
    axes = features.directions.T  # from the features' basis to the coordinates'
    params = {"value": value, "key": (key @ axes)[..., None, :], "query": (query @ axes)[..., None, :]}
    run = icl.train_many(
        loss,
        params,
        optimizer=icl.sam,
        hyperparameters={"learning_rate": rate, "rho": rho},
        num_steps=round(duration / rate),
        num_snapshots=2000,
        track=icl.EffectiveMatrix(loss.graphdef),
    )
    strength = run.trajectory(features).strength
    return icl.learning_times(run.time, strength / features.optimum)


@pytest.mark.parametrize("shape", [(D,), (2, D)], ids=["rank one", "rank two"])
def test_escape_of_a_head_equals_its_flow(shape):
    """Heads of all signs, some of which turn; the quadrature against a solver."""
    draw, goal, turned = np.random.default_rng(1), 0.05 * FOUR.optimum, 0
    for _ in range(40):
        scale = 10 ** draw.uniform(-2, -1)
        value, (key, query) = scale * draw.normal(), 0.5 * scale * draw.normal(size=(2, *shape))
        time, feature = escape_time(value, key, query, drive=FOUR.drive, strength=goal)

        def parts(y):
            return y[0], *y[1:].reshape(2, *shape)

        def field(t, y):
            v, k, q = parts(y)
            pushes = (2 * np.sum(FOUR.drive * k * q), 2 * v * FOUR.drive * q, 2 * v * FOUR.drive * k)
            return np.concatenate([np.ravel(push) for push in pushes])

        def strength(y):
            v, k, q = parts(y)
            return v * (k * q).reshape(-1, D).sum(0)

        events = [lambda t, y, d=d: strength(y)[d] - goal[d] for d in range(D)]
        for event in events:
            event.terminal = True
        begin = np.array([value, *key.ravel(), *query.ravel()])
        found = solve_ivp(field, (0, 1e6), begin, method="DOP853", rtol=1e-11, atol=1e-15, events=events)
        assert len(found.t_events[feature])
        assert time == pytest.approx(found.t[-1], rel=1e-8)
        turned += found.y[0, 0] * found.y[0, -1] < 0
    assert turned > 3


def test_a_head_with_entries_on_a_slow_feature_alone_escapes():
    """With k = q = v = s it follows v̇ = 2a v² and has the strength v³ at `(1/s − 1/v)/(2a)`."""
    slow, goal = np.array([0.0, 0.0, 0.0, 1e-3]), 0.05 * FOUR.optimum
    time, feature = escape_time(1e-3, slow, slow, drive=FOUR.drive, strength=goal)
    assert feature == 3
    assert time == pytest.approx((1e3 - 1.0 / np.cbrt(goal[3])) / (2.0 * FOUR.drive[3]), rel=1e-8)
    fading = slow[[3, 1, 2, 0]]  # a fast feature whose entries only decay, beside the slow one
    assert escape_time(1e-3, slow + fading, slow - fading, drive=FOUR.drive, strength=goal)[1] == 3


def test_a_head_turns_once_at_most():
    """v² is convex in V: heads of all signs, whose second zero is sought beyond the first."""
    draw = np.random.default_rng(2)
    for _ in range(50):
        value, (plus, minus) = draw.normal(), np.abs(draw.normal(size=(2, D)))
        head = _Head(value, plus, minus, FOUR.drive)
        turn = head.turning_point(np.sign(value))
        assert turn is None or head.at(turn).turning_point(-np.sign(value)) is None


def test_escape_of_heads_that_do_not_move_and_bad_input():
    nothing = np.zeros(D)
    assert escape_time(0.1, nothing, nothing, drive=FOUR.drive, strength=np.full(D, 0.01)) == (np.inf, -1)
    assert escape_time(0.1, np.ones(D), np.ones(D), drive=nothing, strength=np.full(D, 1.0)) == (np.inf, -1)
    for change, named in (
        ({"drive": -FOUR.drive}, "drive = .*give drives at or above 0"),
        ({"strength": np.zeros(D)}, "strength = .*more than the head has"),
    ):
        given = {"drive": FOUR.drive, "strength": np.ones(D)} | change
        with pytest.raises(InputError, match=named):
            escape_time(0.1, np.full(D, 0.1), np.full(D, 0.1), **given)


ONE_GROUP = icl.TaskMixture.single([0.4, 0.3, 0.2, 0.1], num_context=31)


@pytest.mark.parametrize(
    ("scale", "rate", "duration", "bounds"),  # of the median error for each feature
    [(0.1, 0.1, 4000.0, (0.01, 0.04, 0.05, 0.10)), (0.02, 0.5, 16_000.0, (0.01, 0.01, 0.01, 0.02))],
)
def test_the_cascade_predicts_every_start(scale, rate, duration, bounds):
    """Bounds were set before the first run; the low ends of 99 % intervals over 64 starts are held to them."""
    heads = starts(64, scale)
    predicted = icl.RandomStartCascade(FOUR, *heads).learning_times()
    measured = trained(ONE_GROUP, heads, rate, duration)
    learned = np.isfinite(measured).all(axis=1)
    assert learned.mean() > 0.9
    errors = np.abs(np.log(predicted[learned] / measured[learned]))
    least = [icl.median_interval(each, confidence=0.99)[1] for each in errors.T]
    assert np.all(np.array(least) <= bounds)
    assert np.corrcoef(np.log(predicted[learned, 3]), np.log(measured[learned, 3]))[0, 1] > 0.9


def disjoint(*shares):
    """A group of its own for each feature, all with the same inputs along it."""
    spectra = np.eye(len(shares))
    groups = [icl.TaskDistribution.create(spectrum, num_context=31) for spectrum in spectra]
    return icl.TaskMixture.create(groups, shares)


@pytest.mark.parametrize("mixture", [ONE_GROUP, disjoint(0.4, 0.3, 0.2, 0.1)], ids=["one group", "disjoint"])
def test_entries_of_a_learned_head_grow_at_the_rate(mixture):
    """The Jacobian of the model's own gradient flow around a head that has learned one feature."""
    features = icl.find_features(mixture)
    drive, entries = features.drive, features.entry_curvature
    rates = invasion_rate(drive, entries)
    assert np.array_equal(keeps_out(drive, entries) | np.eye(D, dtype=bool), (rates <= 0) | np.eye(D, dtype=bool))
    model = icl.SeparateAttention(D, 1, rngs=nnx.Rngs(0))
    loss, _ = icl.make_loss(model, mixture)
    for d in range(D):
        u = np.cbrt(features.optimum[d])
        own = u * features.directions[:, d]
        params = {"value": np.array([u]), "key": own[None, None], "query": own[None, None]}
        for e in set(range(D)) - {d}:
            axis = features.directions[:, e]

            def force(key, query, axis=axis, params=params):
                moved = params | {"key": params["key"] + key * axis, "query": params["query"] + query * axis}
                change = jax.grad(loss)(moved)
                return np.array([-change["key"][0, 0] @ axis, -change["query"][0, 0] @ axis])

            columns = [force(1e-6, 0.0) - force(-1e-6, 0.0), force(0.0, 1e-6) - force(0.0, -1e-6)]
            fastest = np.linalg.eigvals(np.stack(columns, 1) / 2e-6).real.max()
            assert fastest == pytest.approx(rates[d, e], rel=1e-4, abs=1e-6)


def test_one_head_takes_all_features_of_disjoint_groups():
    """`R(κ) − 1` divides by κ, and not `R(κ)`, if the second feature is too slow to grow beside the first."""
    value, key, query = starts(32, 0.02)
    pair, ratios = (value, key[..., :2], query[..., :2]), []
    for kappa in (1.0, 3.0):
        mixture = disjoint(0.97, 0.03).upsampled([1.0, kappa])
        predicted = icl.RandomStartCascade(icl.find_features(mixture), *pair).learning_times()
        measured = trained(mixture, pair, 0.05, 400.0)
        assert np.all(np.median(np.abs(np.log(predicted / measured)), axis=0) < 0.03)
        ratios.append(np.median(measured[:, 1] / measured[:, 0]))
    assert (ratios[0] - 1) / (ratios[1] - 1) == pytest.approx(3.0, rel=0.15)


def test_a_learned_head_that_goes_on_acts_on_the_others():
    """Two groups that share four features; the bound is the Reach of one group at this initial scale."""
    spectrum = np.asarray([0.4, 0.3, 0.2, 0.1])
    groups = [icl.TaskDistribution.create(values, num_context=31) for values in (spectrum, spectrum[::-1].copy())]
    mixture, heads = icl.TaskMixture.create(groups, [0.8, 0.2]), starts(16, 0.02)
    predicted = icl.RandomStartCascade(icl.find_features(mixture), *heads).learning_times(until=5000.0)
    measured = trained(mixture, heads, 0.2, 5000.0)
    learned = np.isfinite(measured).all(axis=1)
    assert learned.mean() > 0.9
    assert np.all(np.median(np.abs(np.log(predicted[learned] / measured[learned])), axis=0) < 0.02)


def test_aligned_heads_are_the_reduced_system():
    """Heads that begin aligned and balanced; under SAM too."""
    start = 0.05
    heads = (np.full(2, start), start * np.eye(2), start * np.eye(2))
    features = icl.find_features(icl.TaskMixture.single([2.0, 1.0], num_context=31))
    time = np.linspace(0.0, 40.0, 4001)
    for rho, ratio in ((0.0, 4.02), (0.5 * np.sqrt(3) * start, 2.61)):  # ratios of the notes, §6
        cascade = icl.RandomStartCascade(features, *heads, icl.Ascent(rho))
        exact = icl.AlignedFlow(features, np.full(2, start), icl.Ascent(rho)).predict(time)
        wanted = icl.learning_times(time, exact.strength / features.optimum)
        found = cascade.learning_times()
        np.testing.assert_allclose(found, wanted, rtol=0.01)
        assert found[1] / found[0] == pytest.approx(ratio, rel=0.02)
        shown = cascade.predict(time)
        known = np.isfinite(exact.strength).all(axis=1)
        assert np.abs(shown.strength - exact.strength)[known].max() < 0.05


def test_many_starts_are_each_as_alone_and_parameters_are_read(monkeypatch):
    heads = starts(3, 0.1)
    model = icl.SeparateAttention(D, H, rngs=nnx.Rngs(0))
    axes = FOUR.directions.T
    params = {"value": heads[0], "key": (heads[1] @ axes)[:, :, None], "query": (heads[2] @ axes)[:, :, None]}
    together = icl.RandomStartCascade.from_params(FOUR, params)
    whole, times = together.run(), together.learning_times()
    drive, entries = FOUR.drive, FOUR.entry_curvature
    alike = [np.broadcast_to(part, (3, *part.shape)) for part in (drive, entries, keeps_out(drive, entries))]
    rows = (heads[0], *(part[:, :, None] for part in heads[1:]))
    direct = integrate_heads(rows, *alike, np.zeros(3), icl.Ascent(np.zeros(3)), np.full(3, np.inf))
    assert isinstance(whole, Cascade)
    np.testing.assert_allclose(direct.strength, whole.strength, rtol=1e-9)
    monkeypatch.setattr("icl_theory.theory.cascade_steps.KEPT", 1)  # several pieces
    at = np.linspace(0.0, [500.0, 1000.0, 1500.0], 301, axis=1)
    sampled, finished = sample_heads(rows, *alike, np.zeros(3), icl.Ascent(np.zeros(3)), at)
    for row in range(3):
        wanted = [np.interp(at[row], direct.time[row], column) for column in direct.strength[row].T]
        np.testing.assert_allclose(sampled[row].T, wanted, rtol=1e-3, atol=1e-6)  # the last step ends at the last time
        reached = direct.finished[row] < at[row, -1]
        np.testing.assert_allclose(finished[row][reached], direct.finished[row][reached], rtol=1e-9)
    for row in range(3):
        alone = icl.RandomStartCascade(FOUR, *(part[row] for part in heads))
        np.testing.assert_allclose(alone.learning_times(), times[row], rtol=1e-9)
        found = alone.run()
        assert np.array_equal(found.head, whole.head[row])
        assert np.array_equal(found.dormant, whole.dormant[row])
        assert found.dormant.sum() == H - len(set(found.head.tolist()))
    assert model.num_heads == H


def test_features_radii_and_times_may_differ_between_starts():
    """Each start is as alone; learning times are those of the strengths at many times."""
    spectra = ([0.4, 0.3, 0.2, 0.1], [0.5, 0.3, 0.15, 0.05], [0.4, 0.3, 0.2, 0.1])
    each = [icl.find_features(icl.TaskMixture.single(values, num_context=31)) for values in spectra]
    joined = icl.Features(*(np.stack(parts) for parts in zip(*each, strict=True)))
    heads, radii = starts(3, 0.1), np.array([0.0, 0.02, 0.05])
    grids = np.linspace(0.0, 1.0, 3001) * np.array([[1500.0], [2500.0], [3000.0]])
    together = icl.RandomStartCascade(joined, *heads, icl.Ascent(radii))
    strengths, times = together.strengths(grids), together.learning_times(until=3000.0)
    for row in range(3):
        own = tuple(part[row] for part in heads)
        alone = icl.RandomStartCascade(each[row], *own, icl.Ascent(radii[row]))
        np.testing.assert_allclose(strengths[row], alone.predict(grids[row]).strength, rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(alone.learning_times(until=3000.0), times[row], rtol=1e-9)
        found = icl.learning_times(grids[row], strengths[row] / each[row].optimum)
        learned = np.isfinite(found)
        assert learned.sum() >= 2
        np.testing.assert_allclose(found[learned], times[row][learned], rtol=0.01)
    with pytest.raises(InputError, match=r"features.drive = .*give shape \(2, 4\)"):
        icl.RandomStartCascade(joined, *(part[:2] for part in heads)).run()


def test_a_learned_feature_comes_to_its_optimum_as_the_closed_form():
    """From 98 % on; the aligned head's closed form is the independent source."""
    start = 0.05
    heads = (np.full(2, start), start * np.eye(2), start * np.eye(2))
    features = icl.find_features(icl.TaskMixture.single([2.0, 1.0], num_context=31))
    time = np.linspace(0.0, 40.0, 4001)
    exact = icl.AlignedClosedForm(features, np.full(2, start)).predict(time).strength / features.optimum
    found = icl.RandomStartCascade(features, *heads).predict(time).strength / features.optimum
    late = exact > 0.985
    assert late.sum() > 1000
    assert np.abs(found - exact)[late].max() < 1e-3


def test_starts_at_the_edges_and_bad_input():
    nothing = (np.zeros(H), np.zeros((H, D)), np.zeros((H, D)))
    assert np.isinf(icl.RandomStartCascade(FOUR, *nothing).learning_times()).all()
    few = icl.RandomStartCascade(FOUR, *(part[0][:1] for part in starts(1, 0.1)))
    assert np.isfinite(few.learning_times()).sum() == 1  # one head, and it keeps out of the other features
    assert (few.run().head >= 0).sum() == 1
    heads = [part[0] for part in starts(1, 0.1)]
    params = {"value": heads[0], "key": heads[1][:, None], "query": heads[2][:, None]}
    for call, named in (
        (lambda: icl.RandomStartCascade.from_params(FOUR, params | {"key": np.zeros((H, 2, D))}).run(), "query = "),
        (lambda: icl.RandomStartCascade.from_params(FOUR, {"value": heads[0]}), "SeparateAttention"),
        (lambda: icl.RandomStartCascade(FOUR, *heads).learning_times(fraction=0.99), "fraction = 0.99"),
        (lambda: icl.RandomStartCascade(FOUR, *heads, icl.Ascent(-1.0)).run(), "rho = -1"),
        (lambda: icl.RandomStartCascade(FOUR, *starts(2, 0.1)).predict(np.arange(3.0)), "predict one at a time"),
        (lambda: icl.RandomStartCascade(FOUR._replace(entry_curvature=None), *heads).run(), "no entry_curvature"),
        (lambda: icl.RandomStartCascade(FOUR._replace(drive=np.zeros(D)), *heads).run(), "needs a positive drive"),
    ):
        with pytest.raises(InputError, match=named):
            call()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda c: c._replace(value=np.full(H, np.nan)).run(), "value = .*finite"),
        (lambda c: c._replace(key=np.full((H, D), np.inf)).run(), "key = .*finite"),
        (lambda c: c.run(np.nan), "until = nan: give a time from 0 on"),
        (lambda c: c.learning_times(until=-1.0), "until = -1.0: give a time from 0 on"),
        (lambda c: c.strengths(np.array([2.0, 1.0])), "time = .*ascending"),
        (lambda c: c.strengths(np.array([0.0, np.nan])), "time = .*ascending"),
        (lambda c: c.strengths(np.ones((3, 2))), "time = 'shape"),
        (lambda c: c._replace(value=np.zeros(0), key=np.zeros((0, D)), query=np.zeros((0, D))).run(), "at least one"),
        (lambda c: c._replace(ascent=icl.Ascent(np.zeros(3))).run(), "rho = 'shape"),
        (lambda c: icl.RandomStartCascade(FOUR, *starts(0, 0.1)).run(), "at least one head"),
    ],
)
def test_bad_starts_times_and_radii_are_named(call, named):
    with pytest.raises(InputError, match=named):
        call(icl.RandomStartCascade(FOUR, *(part[0] for part in starts(1, 0.1))))


def test_a_radius_beyond_the_trap_learns_nothing():
    heads = [part[0] for part in starts(1, 0.01)]
    trapped = icl.RandomStartCascade(FOUR, *heads, icl.Ascent(1.0))
    assert np.isinf(trapped.learning_times(until=1e3)).all()


SHARING = icl.TaskMixture.create(
    [icl.TaskDistribution.create([1.0, 0.5, 0.3, 0.2][::step], num_context=31) for step in (1, -1)], [0.6, 0.4]
)


def test_heads_that_rest_without_being_done_do_not_stop_the_cascade(monkeypatch):
    """With t_4 of the order of 1/start; the same method with short steps throughout is the reference."""
    features, heads = icl.find_features(SHARING), starts(8, 0.004, seed=1)
    found = icl.RandomStartCascade(features, *heads).learning_times()
    assert np.isfinite(found).all()
    monkeypatch.setattr(cascade_steps, "MOST_STEPS", 2**16)
    monkeypatch.setattr(cascade_steps, "GAIN", np.inf)
    jax.clear_caches()
    exact = icl.RandomStartCascade(features, *heads).learning_times()
    jax.clear_caches()
    assert np.median(np.abs(np.log(found / exact)), axis=0).max() < 0.01


def test_what_too_few_steps_leave_open_is_not_known(monkeypatch):
    """NaN, and not infinity, which means never; what was learned by then is known."""
    heads = [part[0] for part in starts(1, 0.1)]
    whole = icl.RandomStartCascade(FOUR, *heads)
    known, time = whole.learning_times(), np.linspace(0.0, 5000.0, 101)
    monkeypatch.setattr(cascade_steps, "MOST_STEPS", 64)
    monkeypatch.setattr(cascade_steps, "KEPT", 1)
    short, run, strength = whole.learning_times(), whole.run(), whole.strengths(time)
    assert 0 < np.isfinite(short).sum() < D
    assert np.array_equal(short, np.where(np.isfinite(short), known, np.nan), equal_nan=True)
    assert np.array_equal(np.isnan(run.finished), run.head < 0)
    assert np.array_equal(np.isnan(strength[-1]), np.isnan(run.finished))
    assert np.isfinite(strength[0]).all()


def test_the_velocity_is_that_of_the_model_for_one_small_head():
    """One head of no learned feature moves as gradient flow on the population loss."""
    heads = tuple(part[:, :1] for part in starts(1, 0.3))
    model = icl.SeparateAttention(D, 1, rngs=nnx.Rngs(0))
    loss, _ = icl.make_loss(model, ONE_GROUP)
    axes = FOUR.directions.T
    params = {"value": heads[0][0], "key": (heads[1][0] @ axes)[:, None], "query": (heads[2][0] @ axes)[:, None]}
    entries = FOUR.entry_curvature[None]
    flow = HeadFlow.of(FOUR.drive[None], entries, keeps_out(FOUR.drive[None], entries), np.zeros(1), icl.Ascent(), 1.0)
    with jax.enable_x64(True):
        given = (heads[0].T, heads[1][0][:, None, :, None], heads[2][0][:, None, :, None])
        none = np.zeros((1, D, 1), bool)
        found = flow.velocity(tuple(map(jnp.asarray, given)), jnp.asarray(none), jnp.zeros((1, 1), bool))
        slope = jax.grad(loss)(params)
    np.testing.assert_allclose(found[0][0, 0], -slope["value"][0], rtol=1e-5)
    np.testing.assert_allclose(found[1][0, 0, :, 0], -slope["key"][0, 0] @ FOUR.directions, rtol=1e-4, atol=1e-6)


def test_stabilised_steps_are_of_second_order_and_stable():
    """Against the closed form of y' = −y + y²/2."""

    def end(velocity, steps, length):
        state = (np.ones(()),)
        for _ in range(steps):
            state = stabilised_step(velocity, state, velocity(state), length)
        return float(state[0])

    with jax.enable_x64(True):
        exact = 2.0 / (1.0 + np.e)
        errors = [abs(end(lambda y: (-y[0] + 0.5 * y[0] ** 2,), steps, 1.0 / steps) - exact) for steps in (8, 16)]
        assert errors[1] < 1e-4
        assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.3)
        for share, stable in ((0.3, True), (0.99, True), (1.1, False)):
            rate = share * STABLE
            assert (abs(end(lambda y, rate=rate: (-rate * y[0],), 3, 1.0)) <= 1.0) == stable
