# %% [markdown]
# # Your own optimizer
# Anything that returns an optax transformation goes where `icl.gd` goes; the numbers it is called with are traced. Here
# Adam and Muon beside gradient descent and SAM, on simplicity bias (notes §7). Time is learning rate × step for each;
# t_d/t_1 has no unit.
#
# The comparison covers one spectrum, one size of the starts, infinite data, and one setting of each optimizer, none of
# them tuned. What Muon does depends on what it is told is a matrix: all heads together here, not each head's row.

# %%
from pathlib import Path

import jax
import numpy as np
import optax
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import FEATURE_COLOURS, GD, SAM, new_figure, save_picture, styled


def muon(learning_rate):
    """Muon on keys and queries, each as one matrix of all heads, (H·R, D); Adam on the values, which are no matrix."""
    matrix = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1), output_axis=2)
    which = lambda params: jax.tree.map(lambda leaf: matrix if leaf.ndim == 3 else None, params)  # noqa: E731
    return optax.contrib.muon(learning_rate, muon_weight_dimension_numbers=which)


OPTIMIZERS = {
    "GD": (icl.gd, {"learning_rate": 0.05}, 50_000),
    "SAM, ρ = 0.05": (icl.sam, {"learning_rate": 0.05, "rho": 0.05}, 50_000),
    "Adam": (optax.adam, {"learning_rate": 1e-3}, 10_000),
    "Muon": (muon, {"learning_rate": 1e-3}, 10_000),
}
mixture = icl.TaskMixture.single(icl.linear_spectrum(4), num_context=31)
features = icl.find_features(mixture)
make = lambda key: icl.SeparateAttention(4, 5, init_scale=0.1, rngs=nnx.Rngs(params=key))  # noqa: E731
keys = jax.random.split(jax.random.key(0), 16)
starts = jax.vmap(lambda key: icl.split_model(make(key))[1])(keys)
loss, _ = icl.make_loss(make(keys[0]), mixture)

# %%
found = {}
for name, (optimizer, hyperparameters, num_steps) in OPTIMIZERS.items():
    run = icl.train_many(
        loss,
        starts,
        optimizer=optimizer,
        hyperparameters=hyperparameters,
        num_steps=num_steps,
        num_snapshots=2000,
        track=icl.EffectiveMatrix(loss.graphdef),
    )
    found[name] = icl.simplicity_bias(run.trajectory(features), features)
    ratios = ["{:.2f} ({:.2f} to {:.2f})".format(*icl.median_interval(found[name].ratios[:, d])) for d in (1, 2, 3)]
    order = np.nanmedian(found[name].rank_agreement)
    exact = np.mean(found[name].rank_agreement == 1.0)
    learned = np.isfinite(found[name].times).all(axis=1).mean()
    print(
        f"{name:14} t_d/t_1 {', '.join(ratios)}; order against drives, Kendall's τ {order:.2f} ({exact:.0%} exactly "
        f"simple first); {learned:.0%} learn all four"
    )


# %%
@styled
def draw():
    """Learning-time ratios of every start, and medians."""
    figure, ((axis,),) = new_figure(5.0, 3.2)
    colours = (GD, SAM, FEATURE_COLOURS[0], FEATURE_COLOURS[1])
    for place, ((name, bias), colour) in enumerate(zip(found.items(), colours, strict=True)):
        for d in (1, 2, 3):
            values = bias.ratios[:, d]
            x = 5 * (d - 1) + place
            axis.plot(np.full(len(values), x), values, "o", color=colour, markersize=2.5, alpha=0.4)
            middle, low, high = icl.median_interval(values)
            label = name if d == 1 else None
            axis.errorbar(
                x, middle, [[middle - low], [high - middle]], fmt="_", color=colour, markersize=11, label=label
            )
    axis.set(
        title="Here the slow features come closest under Adam and Muon", yscale="log", ylabel="$t_d / t_1$, log scale"
    )
    axis.set_xticks([1.5, 6.5, 11.5], labels=["$t_2/t_1$", "$t_3/t_1$", "$t_4/t_1$"])
    axis.set_yticks([1, 2, 5, 10, 20, 50], labels=["1", "2", "5", "10", "20", "50"])
    axis.minorticks_off()
    axis.legend(loc="upper left")
    return figure


save_picture(draw(), Path("results/tutorial/own_optimizer.png"))
