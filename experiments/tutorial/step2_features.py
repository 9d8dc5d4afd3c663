# %% [markdown]
# # Step 2: features, and what theory says of them
# Feature d is the d-th eigendirection of the inputs' covariance. It is *simple* if its drive `a_d = λ_d² γ_d` is large:
# gradient descent meets it first; γ_d is the eigenvalue of Γ. With `c_d`, the curvature of the loss along the feature,
# its best strength is `w_d* = a_d/c_d` (notes §3).

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import icl_theory as icl
from icl_theory.plotting import feature_colour, new_figure, save_picture, styled

mixture = icl.TaskMixture.single(icl.linear_spectrum(4), num_context=31)
features = icl.find_features(mixture)
for name, values in (
    ("drive a_d", features.drive),
    ("curvature c_d", features.curvature),
    ("optimum w_d*", features.optimum),
):
    print(f"{name:14}", np.round(values, 4))

# %% [markdown]
# The loss of any W has a closed form, `L(W) = tr ΛΓ − 2 tr(ΛΓΛ W) + tr(W Λ Wᵀ B)`. Hold it against fresh prompts, with
# the standard error of their mean. `B = E[ββᵀ]`.

# %%
matrix = np.random.default_rng(0).normal(size=(4, 4))
prompts = icl.sample_prompts(mixture, 50_000, key=jax.random.key(0))
squares = (prompts.y_query - jnp.einsum("pd,de,pe->p", prompts.beta, jnp.asarray(matrix), prompts.x_query)) ** 2
measured, error = float(squares.mean()), float(squares.std()) / len(squares) ** 0.5
predicted = float(icl.population_loss(jnp.asarray(matrix), icl.population_moments(mixture)))
print(f"a random W: measured {measured:.3f} ± {error:.3f}, predicted {predicted:.3f}")

# %% [markdown]
# From a small start training rests where the first m features are at their optimum and the others at zero: `L_m = tr ΛΓ
# − Σ_{d≤m} a_d²/c_d` (notes §4).

# %%
plateaus = icl.nested_plateau_losses(features)
print("predicted plateaus:", plateaus.round(3))


# %%
@styled
def draw():
    """The staircase of plateaus, each step with the gain of its feature."""
    figure, ((axis,),) = new_figure(4.5, 2.7)
    for d in range(4):
        axis.plot([d + 0.5, d + 1.5], [plateaus[d + 1]] * 2, color="black")
        axis.bar(d + 1, features.gain[d], bottom=plateaus[d + 1], color=feature_colour(d), width=0.5)
    axis.plot([-0.5, 0.5], [plateaus[0]] * 2, color="black")
    axis.set(
        title="Each feature takes $a_d^2/c_d$ off the loss",
        xlabel="features learned",
        ylabel="loss at rest",
        ylim=(0, 1.05),
    )
    return figure


save_picture(draw(), Path("results/tutorial/step2_features.png"))
