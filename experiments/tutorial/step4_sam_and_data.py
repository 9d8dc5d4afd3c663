# %% [markdown]
# # Step 4: SAM, and the same through the data
# SAM takes its gradient a distance ρ uphill. That slows what dominates the gradient, the simple feature, and so lowers
# t_d/t_1 (notes §6). Upsampling what is learned late does it through the data (notes §8). Same starts for all, several
# seeds.

# %%
from pathlib import Path

import jax
import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import GD, LATE, SAM, new_figure, save_picture, styled

spectra = (
    np.array([0.4, 0.3, 0.0, 0.0]),
    np.array([0.0, 0.0, 0.2, 0.1]),
)  # group 1 has the simple features, group 2 the others
groups = [icl.TaskDistribution.create(2 * spectrum, num_context=31) for spectrum in spectra]
mixture = icl.TaskMixture.create(groups, np.array([0.5, 0.5]))
features = icl.find_features(mixture)
make = lambda key: icl.SeparateAttention(4, 5, init_scale=0.1, rngs=nnx.Rngs(params=key))  # noqa: E731
keys = jax.random.split(jax.random.key(0), 32)
rate, num_steps = 0.05, 24_000
starts = jax.vmap(lambda key: icl.split_model(make(key))[1])(keys)


def measure(data, optimizer=icl.gd, **extra):
    """Learning times and t_d/t_1 of every start, (32, 4) each."""
    loss, _ = icl.make_loss(make(keys[0]), data)
    run = icl.train_many(
        loss,
        starts,
        optimizer=optimizer,
        hyperparameters={"learning_rate": rate, **extra},
        num_steps=num_steps,
        num_snapshots=2000,
        track=icl.EffectiveMatrix(loss.graphdef),
    )
    return icl.simplicity_bias(run.trajectory(features), features)


# %% [markdown]
# The rule is `κ = R / R_target`. R is the learning time of the late features over that of the early ones, and we aim at
# 1. R comes from gradient descent on the plain data, median over the starts. From random starts the rule gets the
# direction right, not the size (notes §8).

# %%
plain = measure(mixture)
late = np.array([False, False, True, True])  # the features of group 2
last = rate * num_steps  # learning time of what is never learned
R = float(np.median([icl.learning_time_ratio(times, late, last=last) for times in plain.times]))
factor = float(icl.ratio_factor(R))
print(f"the late take {R:.2f} times as long as the early, so κ = {factor:.2f}")

# %% [markdown]
# `mixture.upsampled` draws group 2 κ times as often. Medians over the seeds with 95 % intervals; a run that never
# learns a feature counts as infinitely late.

# %%
found = {
    "GD": plain.ratios,
    "SAM, ρ = 0.05": measure(mixture, icl.sam, rho=0.05).ratios,
    f"GD, late group × {factor:.2f}": measure(mixture.upsampled([1.0, factor])).ratios,
}
print(f"{'':22}" + "".join(f"t_{d + 1}/t_1".rjust(22) for d in (1, 2, 3)))
for name, values in found.items():
    cells = ["{:.2f} ({:.2f} to {:.2f})".format(*icl.median_interval(values[:, d])) for d in (1, 2, 3)]
    print(f"{name:22}" + "".join(cell.rjust(22) for cell in cells))


# %%
@styled
def draw():
    """Medians of t_d/t_1 with their intervals, the three arms side by side."""
    figure, ((axis,),) = new_figure(4.5, 2.9)
    for place, ((name, values), colour) in enumerate(zip(found.items(), (GD, SAM, LATE), strict=True)):
        middle, low, high = np.array([icl.median_interval(values[:, d]) for d in (1, 2, 3)]).T
        x = np.arange(3) + 0.15 * (place - 1)
        axis.errorbar(x, middle, [middle - low, high - middle], fmt="o", capsize=3, color=colour, label=name)
    axis.set(title="Both bring the slow features closer", yscale="log", ylabel="$t_d / t_1$, log scale")
    axis.set_xticks(range(3), labels=["$t_2/t_1$", "$t_3/t_1$", "$t_4/t_1$"])
    axis.set_yticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
    axis.minorticks_off()
    axis.legend(loc="upper left")
    return figure


save_picture(draw(), Path("results/tutorial/step4_sam_and_data.png"))
