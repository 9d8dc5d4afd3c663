# %% [markdown]
# # A claim of your own
# A claim is a question, settings, a measurement that returns a labelled data set, and statements that read a prediction
# and a measurement off it. This one asks what the size of the start does. From small starts t_d is about `1/(2 a_d
# u_0)`, so halving u_0 should double it (notes §5).

# %%
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import feature_colour, new_figure, save_picture, styled
from icl_theory.verification import Claim, Statements, verify
from icl_theory.verification.labels import dataset, variable
from icl_theory.verification.table import print_table


@dataclasses.dataclass(frozen=True)
class Settings:
    """Three features, one head aligned with each, gradient descent on infinite data. Power: nothing is drawn."""

    starts: tuple[float, ...] = (0.08, 0.04, 0.02)
    learning_rate: float = 1e-3
    num_steps: int = 150_000


def measure(settings, progress):
    """Return learning times and their closed form, (start, feature)."""
    mixture = icl.TaskMixture.single([1.0, 0.8, 0.6], num_context=31)
    features = icl.find_features(mixture)
    loss, _ = icl.make_loss(icl.SeparateAttention(3, 3, rngs=nnx.Rngs(0)), mixture)
    run = icl.train_many(
        loss,
        jax.vmap(lambda start: icl.aligned_parameters(jnp.full(3, start), features.directions))(
            jnp.asarray(settings.starts)
        ),
        hyperparameters={"learning_rate": settings.learning_rate},
        num_steps=settings.num_steps,
        num_snapshots=4000,
        track=icl.EffectiveMatrix(loss.graphdef),
    )
    times = icl.simplicity_bias(run.trajectory(features), features).times
    predicted = [
        icl.hitting_time(0.5, drive=features.drive, optimum=features.optimum, start=start) for start in settings.starts
    ]
    progress(1, 1)
    variables = {
        "learning_time": variable("start feature", times, "when half of the optimum is reached"),
        "hitting_time": variable("start feature", np.array(predicted), "the same in closed form"),
    }
    return dataset(variables, start=list(settings.starts))


# %% [markdown]
# A statement is a function; its sentence, tolerance and predictor stand in the decorator. Choose tolerances before the
# first run. The third statement takes the small-start formula at its word; the closed form says that it is a few per
# cent off.

# %%
table = Statements("start_size", source="notes §5")


@table.agrees("Features are learned at the closed-form hitting time", rtol=5e-3, predictor=icl.hitting_time)
def learned_at_the_hitting_time(data):
    return data.hitting_time, data.learning_time


@table.at_least("Halving the start multiplies learning times by at least 1.9", bound=1.9, predictor=icl.hitting_time)
def halving_the_start_nearly_doubles_the_time(data):
    return data.learning_time.values[1:] / data.learning_time.values[:-1]


@table.agrees("Halving the start exactly doubles learning times", rtol=1e-3, predictor=icl.hitting_time)
def halving_the_start_doubles_the_time(data):
    return np.full((2, 3), 2.0), data.learning_time.values[1:] / data.learning_time.values[:-1]


claim = Claim("start_size", "What does the size of the start do?", Settings(), measure, table)
rows = verify([claim], float32=False)
print_table(rows)

# %% [markdown]
# The last one does not hold at this tolerance, and says by how much: a statement that cannot fail checks nothing. In
# the package a claim is a module of `icl_theory/verification/claims`; CONTRIBUTING names the other places to touch.

# %%
data = claim.data()


@styled
def draw():
    """Learning times against the size of the start, measured and in closed form."""
    figure, ((axis,),) = new_figure(4.5, 2.8)
    for d in range(3):
        axis.plot(data.start, data.learning_time[:, d], "o", color=feature_colour(d))
        axis.plot(data.start, data.hitting_time[:, d], "--", color="black", linewidth=1)
        axis.text(0.084, data.learning_time[0, d], f"feature {d + 1}", color=feature_colour(d), va="center", fontsize=7)
    axis.set(
        title="Half the start, about twice the time\n(dots: measured; dashed: closed form)",
        xscale="log",
        yscale="log",
        xlabel="start $u_0$",
        ylabel="learning time",
    )
    axis.set_xticks(Settings().starts, labels=[f"{start:g}" for start in Settings().starts])
    axis.set_yticks([5, 10, 20, 50], labels=["5", "10", "20", "50"])
    axis.minorticks_off()
    return figure


save_picture(draw(), Path("results/tutorial/own_claim.png"))
