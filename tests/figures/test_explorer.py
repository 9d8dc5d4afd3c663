"""The explorer's JavaScript against the Python theory, run in a JavaScript engine."""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import py_mini_racer as mini_racer
import pytest
import xarray as xr
from click.testing import CliRunner
from flax import nnx

import figures.explorer as explorer
import icl_theory as icl
from figures.explorer import generalisation
from figures.explorer.__main__ import main
from icl_theory import plotting
from icl_theory.analysis.learning_times import learning_times
from icl_theory.tasks.features import find_group_features
from icl_theory.tasks.spectra import geometric_spectrum
from icl_theory.theory.aligned_dynamics import AlignedDescent, Ascent
from icl_theory.theory.sam_dynamics import stall_strengths, trap_radius
from icl_theory.theory.upsampling import path_matched_factors
from icl_theory.verification.changes import log_change
from icl_theory.verification.claims.upsampling import separate_groups

SPECTRUM = np.asarray([0.4, 0.3, 0.2, 0.1])
SETTING = {
    "start": "aligned",
    "eigenvalues": SPECTRUM.tolist(),
    "context": 31,
    "factor": 2.0,
    "rate": 0.02,
    "rho": 0.04,
    "size": 0.1,
    "scale": 0.1,
    "seed": 3,
    "heads": 5,
}
SHOWN = "function shown(run) { return Array.from(run.learned); }"


@pytest.fixture(scope="module")
def js():
    """Run an expression of the scripts and return its value."""
    scripts = [(explorer.FOLDER / name).read_text() for name in (*explorer.SCRIPTS, "generalisation.js")]
    with mini_racer.MiniRacer() as engine:
        engine.eval("\n".join([*scripts, SHOWN]))

        def value(code, **names):
            given = ", ".join(map(json.dumps, names.values()))
            return json.loads(engine.eval(f"(({', '.join(names)}) => JSON.stringify({code}))({given})"))

        yield value


def mixture(factor=1.0, eigenvalues=SPECTRUM):
    return separate_groups(np.asarray(eigenvalues), 31).upsampled([1.0] + [factor] * (len(eigenvalues) - 1))


def features(factor=1.0, eigenvalues=SPECTRUM):
    return find_group_features(separate_groups(np.asarray(eigenvalues), 31)).upsampled(
        [1.0] + [factor] * (len(eigenvalues) - 1)
    )


def map_times(found, size, rate, rho, duration):
    """Learning times of the reduced map, looked at after every step."""
    time = rate * np.arange(round(duration / rate) + 1)
    start = np.full(len(found.drive), size)
    strength = AlignedDescent(found, start, rate, Ascent(rho)).predict(time).strength
    return learning_times(time, strength / found.optimum)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_features_and_plateaus_are_those_of_the_package(js, factor):
    found = js("groupFeatures(setting, factor)", setting=SETTING, factor=factor)
    wanted = features(factor)
    for name in ("drive", "curvature", "optimum"):
        values = found[name] if isinstance(found[name], list) else list(found[name].values())
        np.testing.assert_allclose(values, getattr(wanted, name), rtol=1e-12)
    assert found["energy"] == pytest.approx(wanted.energy, rel=1e-12)
    levels = js("nestedPlateaus(groupFeatures(setting, factor))", setting=SETTING, factor=factor)
    np.testing.assert_allclose(levels, icl.nested_plateau_losses(wanted), rtol=1e-12)


def test_plateaus_of_another_order(js):
    """The first plateau is that of feature 2 alone if upsampling puts feature 2 first."""
    levels = js("nestedPlateaus(groupFeatures(setting), groupFeatures(setting, 4).drive)", setting=SETTING)
    assert levels[1] == pytest.approx(icl.plateau_loss(features(), [1]), rel=1e-12)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_gradient_flow_is_the_closed_form(js, factor):
    found = js("hittingTimes(groupFeatures(setting, factor), 0.1)", setting=SETTING, factor=factor)
    wanted = features(factor)
    times = icl.hitting_time(0.5, drive=wanted.drive, optimum=wanted.optimum, start=0.1)
    np.testing.assert_allclose(found, times, rtol=1e-12)


def test_aligned_learning_times_are_those_of_the_reduced_map(js):
    """All three methods, until every feature is learned; SAM at several ρ, before it oscillates."""
    rate = SETTING["rate"]
    for rho in (0.0, 0.02, 0.08):
        setting = SETTING | {"rho": rho}
        gd, sam, upsampled = js("Object.values(simulate(setting)).map(shown)", setting=setting)
        np.testing.assert_allclose(gd, map_times(features(), 0.1, rate, 0.0, 700.0), rtol=1e-9)
        np.testing.assert_allclose(sam[:3], map_times(features(), 0.1, rate, rho, 700.0)[:3], rtol=1e-9)
        np.testing.assert_allclose(upsampled, map_times(features(2.0), 0.1, rate, 0.0, 700.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("eigenvalues", "ratios"),
    [((2.0, 1.0), (4.02, 3.62, 2.61, 1.28, 1.05)), ((1.5, 1.0), (2.26, 1.99, 1.48, 1.09, 1.03))],
)
def test_sam_has_the_ratios_measured_for_the_notes(js, eigenvalues, ratios):
    """The table of theory notes §6: one group of prompts with both features."""
    found = icl.find_features(icl.TaskMixture.single(eigenvalues, num_context=31))
    for delta, wanted in zip((0.0, 0.2, 0.5, 0.8, 0.95), ratios, strict=True):
        code = "ratio(goOn(runOf(alignedModel(f, [0.05, 0.05], 1e-3, rho), f, 1e-3), 30000))"
        text = f"((f) => {code})(makeFeatures(drive, curvature, energy))"
        numbers = {"drive": found.drive.tolist(), "curvature": found.curvature.tolist(), "energy": found.energy}
        assert js(text, rho=delta * 3**0.5 * 0.05, **numbers) == pytest.approx(wanted, rel=0.015)


@pytest.mark.parametrize("rho", [0.02, 0.05, 0.1])
def test_the_factor_found_is_the_path_matched_one(js, rho):
    """κ = R_GD/R_SAM, from the flow of the package; the explorer steps, hence the tolerance."""
    found = js("findFactor(setting)", setting=SETTING | {"rho": rho})
    wanted = path_matched_factors(features(), start=0.1, rho=rho)[1]
    assert found["factor"] == pytest.approx(wanted, rel=3e-3)
    assert found["achieved"] == pytest.approx(found["ratio"], rel=1e-6)


def test_no_factor_is_found_where_there_is_none(js):
    def sentence(steps=100_000, **changes):
        code = "((r) => factorSentence(setting, findFactor(setting, r), r))(simulate(setting, steps))"
        return js(code, setting=SETTING | changes, steps=steps)

    assert "less than κ = 16 gives" in sentence(eigenvalues=[1.0, 0.05, 0.05, 0.05], rho=0.2)
    assert "trapped" in sentence(eigenvalues=[0.25] * 4, rho=0.36)
    assert "does not learn features 1 and 2" in sentence(steps=500)


def test_equal_features_are_trapped_from_the_trap_radius_on(js):
    """Exactly at ρ = √3 ‖u(0)‖ from an equal start, where they stall at the u_d of the theory; below it they wait."""
    radius = trap_radius(np.full(4, 0.1))
    equal = SETTING | {"eigenvalues": [0.25] * 4}
    assert js("startNorm(setting)", setting=equal) == pytest.approx(radius, rel=1e-12)
    code = "((r) => [isTrapped(r), summary(setting, r).join(' '), r.sam.strength.at(-1)])(simulate(setting, 60000))"
    for share, said in ((0.9, "SAM learns every feature later"), (0.97, "SAM waits"), (1.05, "SAM is trapped")):
        trapped, text, strength = js(code, setting=equal | {"rho": share * radius})
        assert trapped == (share > 1)
        assert said in text
        assert ("has not left the saddle at zero" in text) == (share > 0.9)
    stalled = stall_strengths(features(eigenvalues=[0.25] * 4).drive, 1.05 * radius)
    np.testing.assert_allclose(np.cbrt(strength), stalled, rtol=0.05)


def test_unlike_features_are_not_trapped_there(js):
    radius = trap_radius(np.full(4, 0.1))
    assert not js("isTrapped(simulate(setting))", setting=SETTING | {"rho": 1.2 * radius})


@pytest.mark.parametrize(("rho", "factor"), [(0.0, 1.0), (0.05, 1.0), (0.0, 2.0)])
def test_random_starts_take_the_steps_of_training(js, rho, factor):
    """Strengths over 400 steps of the full model, from the explorer's own start."""
    steps = [0, 50, 100, 200, 400]
    setting = SETTING | {"start": "random", "rate": 0.1}  # so that something is learned
    theta = np.asarray(js("Array.from(randomStart(setting))", setting=setting))
    value, key, query = theta[:5], theta[5:25].reshape(5, 1, 4), theta[25:].reshape(5, 1, 4)
    params = {"value": jnp.asarray(value), "key": jnp.asarray(key), "query": jnp.asarray(query)}
    loss, _ = icl.make_loss(icl.SeparateAttention(4, 5, rngs=nnx.Rngs(0)), mixture(factor))
    run = icl.train(
        loss,
        params,
        optimizer=icl.sam,
        hyperparameters={"learning_rate": 0.1, "rho": rho},
        num_steps=400,
        snapshots=np.asarray(steps),
        track=icl.EffectiveMatrix(loss.graphdef),
    )
    found = js(
        "((run) => steps.map((step) => Array.from(goOn(run, step).model.strength)))(newRun(setting, {rho, factor}))",
        setting=setting,
        steps=steps,
        rho=rho,
        factor=factor,
    )
    wanted = np.diagonal(run.tracked, axis1=-2, axis2=-1)
    assert (np.abs(wanted[-1]) > 1e-3).any()
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    if factor == 1.0:  # else the explorer has the loss on the data as they are
        code = "((run) => steps.map((step) => goOn(run, step).loss.at(-1)))(newRun(setting, {rho}))"
        np.testing.assert_allclose(js(code, setting=setting, steps=steps, rho=rho), run.loss, rtol=1e-9)


def test_random_starts_have_the_scales_of_the_model(js):
    """As `SeparateAttention`: values of the scale, keys and queries of scale/√D; seeds differ."""
    code = "[...Array(500).keys()].map((seed) => Array.from(randomStart({...setting, seed})))"
    starts = np.asarray(js(code, setting=SETTING))
    values, others = starts[:, :5], starts[:, 5:]
    assert values.std() == pytest.approx(0.1, rel=0.05)
    assert others.std() == pytest.approx(0.05, rel=0.03)
    assert abs(others.mean()) < 0.002
    assert abs(np.corrcoef(starts[:-1].ravel(), starts[1:].ravel())[0, 1]) < 0.03


def test_random_starts_may_be_trapped(js):
    code = "((r) => [isTrapped(r), findFactor(setting, r)])(simulate(setting))"
    found = js(code, setting=SETTING | {"start": "random", "rho": 0.3})
    assert found == [True, {"none": "trap"}]


def told(js, steps=300_000, **changes):
    code = "summary(setting, simulate(setting, steps)).join(' ')"
    return js(code, setting=js("DEFAULTS") | changes, steps=steps)


def test_another_order_is_said_of_sam_too_but_not_of_a_tie(js):
    """κ just above 1 puts equal features 2 to 4 first; at κ = 1 they come together."""
    assert "Under SAM feature 2 comes first." in told(js, rho=0.3)
    assert "comes first" not in told(js)
    equal = {"eigenvalues": [0.25] * 4, "rho": 0.0}
    assert "On upsampled data feature 2 comes first." in told(js, factor=1.5, **equal)
    assert "comes first" not in told(js, factor=1.0, **equal)
    assert "comes first" not in told(js, factor=1 + 1e-8, **equal)


def test_who_looks_for_a_trap_is_told_where_to_find_one(js):
    hint = "unlike features are not trapped"
    assert hint in told(js, rho=0.3)
    assert hint not in told(js)
    assert hint not in told(js, rho=0.1, eigenvalues=[0.25] * 4)


def test_what_differs_from_the_claim_is_said(js):
    """From a random start with κ = 2 each of features 2 to 4 has 2/7 of the prompts, not 1/4."""
    code = "aboutUpsampling({...DEFAULTS, start, factor: 2}, simulate(DEFAULTS)).join(' ')"
    assert "only 1.14 times its prompts" in js(code, start="random")
    assert "times its prompts" not in js(code, start="aligned")


def test_a_factor_of_one_is_called_none(js):
    found = {"factor": 1 + 1e-5, "ratio": 2.0}
    assert "so nothing needs to be upsampled" in js("factorSentence(DEFAULTS, found, {})", found=found)


def test_changes_have_a_sign(js):
    assert [js("signed(value)", value=value) for value in (-0.04, 0.0, 0.02)] == ["−0.04", "0", "+0.02"]


def test_what_is_not_learned_has_no_number(js):
    """Steps that end between the second feature and the fourth."""
    drawn = "[ratioPicture(r, {width: 500, height: 270}), timeRows(r), summary(setting, r).join(' ')]"
    text, times, words = js(f"((r) => {drawn})(simulate(setting, 5000))", setting=SETTING)
    assert text.count("feature 4 not learned by t = 100") == 3
    assert times.count("not learned by t = 100") >= 3
    assert "Infinity" not in text + times + words
    assert "NaN" not in text + times + words


def test_default_has_the_signs_of_the_readme(js):
    """SAM lowers t_2/t_1 and learns later; upsampling lowers t_3/t_1 and learns the slowest sooner."""
    gd, sam, upsampled = map(np.asarray, js("Object.values(simulate(DEFAULTS)).map(shown)"))
    assert (sam / sam[0])[1] < 0.8 * (gd / gd[0])[1]
    assert (upsampled / upsampled[0])[2] < 0.8 * (gd / gd[0])[2]
    assert (sam > 1.1 * gd).all()
    assert upsampled[3] < 0.95 * gd[3]
    assert not js("simulate(DEFAULTS).sam.oscillates < 740")


def test_link_carries_the_setting(js):
    setting = SETTING | {"start": "random", "factor": 1.4848}
    assert js("fromHash(asHash(setting))", setting=setting) == setting
    assert js("fromHash('#figures')") is None
    wrong = "#explorer:start=there&rho=-1&rate=abc&context=1e9&eigenvalues=1,2&size=NaN&heads=1e3"
    assert js("fromHash(text)", text=wrong) == js("DEFAULTS")


def test_eigenvalues_do_not_pass_their_neighbours(js):
    assert js("changed(setting, 'eigenvalue1', 0.9).eigenvalues", setting=SETTING) == [0.4, 0.4, 0.2, 0.1]
    assert js("changed(setting, 'eigenvalue1', 0.01).eigenvalues", setting=SETTING) == [0.4, 0.2, 0.2, 0.1]
    np.testing.assert_allclose(js("geometricSpectrum(3)"), geometric_spectrum(4, 3.0), rtol=1e-12)


def test_colours_are_those_of_the_figures():
    style = (explorer.FOLDER / "explorer.css").read_text().upper()
    colours = {"gd": plotting.GD, "sam": plotting.SAM, "upsampled": plotting.LATE}
    colours |= {"random": plotting.RANDOM, "early": plotting.EARLY, "fresh": plotting.FRESH_LATE}
    colours |= {f"feature{d + 1}": plotting.feature_colour(d) for d in range(4)}
    for name, colour in colours.items():
        assert f"--{name}: light-dark({colour},".upper() in style


def saved(seeds=40, snapshots=301):
    """Data of the shape of the claim `generalisation`."""
    random = np.random.default_rng(0)
    arms, cases = [*generalisation.METHODS, "residual"], 8
    losses = np.exp(0.3 * random.standard_normal((len(arms), cases, seeds, snapshots, 2)))
    return xr.Dataset(
        {"held_out_loss": (("arm", "case", "seed", "snapshot", "shown_test"), losses.astype(np.float32))}
        | {"time": ("snapshot", np.linspace(0.0, 1500.0, snapshots))},
        coords={
            "arm": arms,
            "shown_test": ["training", "reversed"],
            "mixture": ("case", ["one group"] * 4 + ["two groups"] * 4),
            "noise_std": ("case", [0.0] * cases),
            "num_prompts": ("case", [100, 300, 1000, 5000] * 2),
        },
    )


def test_generalisation_curves_are_medians_of_paired_seeds(js):
    data = saved()
    numbers = generalisation.curves(data)
    assert len(numbers["kinds"]) == len(numbers["methods"])
    drawn = js("changePicture(saved, 2, 1, 0, {width: 500, height: 220})", saved=numbers)
    assert 'band sam"' in drawn
    assert len(json.dumps(numbers)) < 200_000
    assert numbers["data"][6] == "two groups, P = 1000"
    losses = data.held_out_loss.sel(shown_test="training").isel(case=6, snapshot=-1)
    for first, second in ((4, 1), (1, 4), (0, 7)):
        names = [list(generalisation.METHODS)[each] for each in (first, second)]
        wanted = log_change(*(losses.sel(arm=name).values.astype(float) for name in names))
        found = js("changeOf(saved, 6, first, second)", saved=numbers, first=first, second=second)
        np.testing.assert_allclose([row[-1] for row in found], 100 * np.expm1(wanted[:3]), atol=0.02)


def test_fragment_stands_in_another_page():
    """Styles do not leave it, and those of the report have no class in common with it."""
    sheet = (Path(explorer.__file__).parents[1] / "report" / "templates" / "style.css").read_text()
    report = re.findall(r"\.([a-z-]+)(?=[^}]*{)", sheet)
    plain, full = explorer.fragment(), explorer.fragment(saved(8, 31))
    assert "mountGeneralisation" not in plain
    assert "mountGeneralisation" in full
    for text in (plain, full):
        assert text.count("<section") == text.count("</section>") == text.count("<script>") == 1
        assert "http" not in text
        style = text.partition("<style>")[2].partition("</style>")[0]
        rules = [line for line in style.splitlines() if line.endswith("{") and not line.startswith(("@", " "))]
        assert rules
        assert all(line.startswith(".icl-explorer") for line in rules)
        assert "pill" in report
        assert not set(" ".join(re.findall(r'class="([a-z0-9 -]+)"', text)).split()) & set(report)


def test_command_writes_a_page(tmp_path):
    path = tmp_path / "sub" / "page.html"
    done = CliRunner().invoke(main, [str(path)], catch_exceptions=False)
    assert done.exit_code == 0
    assert path.read_text() == explorer.page()
    with pytest.raises(icl.InputError, match="cannot be written"):
        CliRunner().invoke(main, [str(Path("/dev/null/page.html"))], catch_exceptions=False)
