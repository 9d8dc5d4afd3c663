# %% [markdown]
# # Step 1: one prompt
# A prompt holds N context tokens (x_n, y_n) and a query x_q. Its labels come from one task vector w, `y_n = w·x_n`,
# drawn anew for every prompt; the model has to say `y_q = w·x_q` from the context alone. Λ is the covariance of the
# inputs, with eigenvalues λ_d; Γ is that of the task vectors, here I. "Notes" are `icl_theory/theory/NOTES.md`, here
# §1.

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import PAGE, feature_colour, new_figure, save_picture, styled

mixture = icl.TaskMixture.single(icl.linear_spectrum(4), num_context=31)  # λ = 0.4, 0.3, 0.2, 0.1; w ~ N(0, I)
one = icl.sample_prompts(mixture, 1, key=jax.random.key(0))
print("tokens x:", one.x.shape, " labels y:", one.y.shape, " query:", one.x_query.shape, " target:", one.y_query.shape)

# %% [markdown]
# Reduced weights are those that reach the prediction. All that linear attention with them sees of the context is `β =
# (1/N) Σ_n y_n x_n`, an estimate of Λw (notes §2).

# %%
beta = jnp.mean(one.y[..., None] * one.x, axis=1)
print(
    "β by hand:",
    np.round(np.asarray(beta[0], float), 3),
    " as the package has it:",
    np.round(np.asarray(one.beta[0], float), 3),
)
print("Λw, its mean:", np.round(icl.linear_spectrum(4) * np.asarray(one.task_vector[0], float), 3))

# %% [markdown]
# The same for 500 prompts, each coordinate against its mean. Large eigenvalues stand out of the noise of a context:
# these directions are easy.

# %%
several = icl.sample_prompts(mixture, 500, key=jax.random.key(2))


@styled
def draw():
    """Context averages against their means, coordinate by coordinate."""
    figure, (axes,) = new_figure(PAGE, 2.4, 1, 4, sharex=True, sharey=True)
    for d, axis in enumerate(axes):
        eigenvalue = icl.linear_spectrum(4)[d]
        axis.plot(
            eigenvalue * several.task_vector[:, d], several.beta[:, d], ".", color=feature_colour(d), markersize=2
        )
        axis.axline((0, 0), slope=1, color="black", linestyle="--", linewidth=1)
        axis.set(title=f"λ = {eigenvalue:.1f}", xlabel="$(Λw)_d$")
    axes[0].set_ylabel("$β_d$")
    figure.suptitle("Large eigenvalues stand out of the noise of a context", x=0.01, ha="left")
    return figure


save_picture(draw(), Path("results/tutorial/step1_prompt.png"))

# %% [markdown]
# A model maps prompts to predictions. Linear attention is `ŷ = βᵀ W x_q`, with one effective matrix W of all its heads.

# %%
model = icl.SeparateAttention(dim=4, num_heads=5, init_scale=0.3, rngs=nnx.Rngs(0))
prediction = model(one)
by_matrix = one.beta[0] @ model.effective_matrix() @ one.x_query[0]
print(f"prediction {float(prediction[0]):+.4f} = βᵀ W x_q {float(by_matrix):+.4f}; target {float(one.y_query[0]):+.4f}")

# %% [markdown]
# The loss is the mean square error over prompts. A model that says zero has `E[y_q²] = tr(ΛΓ)`, here 1: all curves
# begin there.

# %%
many = icl.sample_prompts(mixture, 20_000, key=jax.random.key(1))
squares = many.y_query**2
zero_loss, error = float(squares.mean()), float(squares.std() / len(squares) ** 0.5)
print(
    f"loss of saying zero on 20 000 prompts: {zero_loss:.3f} ± {error:.3f}; tr(ΛΓ) = "
    f"{icl.find_features(mixture).energy:.3f}"
)
