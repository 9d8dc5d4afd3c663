# %% [markdown]
# # Your own model
# Any flax NNX module that maps prompts to predictions, (P,), trains: `make_loss(model, prompts)`. It goes through its
# prompts at every step, where linear attention needs their moments only. Here: ridge regression on the context, with a
# learned ridge.

# %%
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import FEATURE_COLOURS, GD, label_ends, new_figure, save_picture, styled


class LearnedRidge(nnx.Module):
    """`ŷ = x_qᵀ (XᵀX/N + diag(e^r))⁻¹ β` with r learned, one number a coordinate."""

    def __init__(self, dim: int, start: float):
        self.log_ridge = nnx.Param(jnp.full(dim, start))

    def __call__(self, prompts: icl.Prompts) -> jax.Array:
        """Predictions at the queries, (P,)."""
        count = prompts.x.shape[1]
        gram = jnp.einsum("pnd,pne->pde", prompts.x, prompts.x) / count + jnp.diag(jnp.exp(self.log_ridge[...]))
        return jnp.einsum("pd,pd->p", jnp.linalg.solve(gram, prompts.beta[..., None])[..., 0], prompts.x_query)


mixture = icl.TaskMixture.single(icl.linear_spectrum(4), num_context=8, noise_std=0.5)
prompts = icl.sample_prompts(mixture, 500, key=jax.random.key(0))
asked = icl.sample_prompts(mixture, 5000, key=jax.random.key(1))

# %% [markdown]
# The same call trains both; `track` keeps the weights at every snapshot, so that they can be asked about prompts they
# never saw.

# %%
parts = asked.task_vector * asked.x_query  # the target is a sum of features, y_q = Σ_d w_d x_q,d
held_out, shares = {}, {}
for name, model, rate, num_steps in (
    ("learned ridge", LearnedRidge(4, start=2.0), 5.0, 400),
    ("linear attention", icl.SeparateAttention(4, 5, init_scale=0.3, rngs=nnx.Rngs(0)), 0.2, 4000),
):
    loss, params = icl.make_loss(model, prompts)
    run = icl.train(
        loss,
        params,
        hyperparameters={"learning_rate": rate},
        num_steps=num_steps,
        num_snapshots=20,
        track=lambda params: params,
    )
    graphdef, _ = icl.split_model(model)
    ask = jax.jit(lambda params, graphdef=graphdef: icl.merge_model(graphdef, params)(asked))
    predicted = np.stack(
        [
            ask(jax.tree.map(lambda leaf, snapshot=snapshot: leaf[snapshot], run.tracked))
            for snapshot in range(len(run.step))
        ]
    )
    held_out[name] = np.mean((predicted - np.asarray(asked.y_query)) ** 2, axis=1)
    shares[name] = predicted[-1] @ np.asarray(parts) / np.sum(np.asarray(parts) ** 2, axis=0)
    print(
        f"{name:17} training {run.loss[0]:.3f} → {run.loss[-1]:.3f}, held out {held_out[name][0]:.3f} → "
        f"{held_out[name][-1]:.3f}"
    )
    print(f"{'':17} share of each feature in its predictions, E[ŷ y_d]/E[y_d²]: {shares[name].round(2)}")

# %% [markdown]
# The lowest loss possible here is the Bayes risk: w is normal, so its posterior mean is ridge with `σ²/N` on every
# coordinate.

# %%
bayes = LearnedRidge(4, start=float(np.log(0.5**2 / 8)))
least = float(jnp.mean((bayes(asked) - asked.y_query) ** 2))
print(f"Bayes risk on the same prompts: {least:.3f}; saying zero: {float(jnp.mean(asked.y_query**2)):.3f}")


# %%
@styled
def draw():
    """Held-out losses along training, with the Bayes risk."""
    figure, ((axis,),) = new_figure(4.5, 2.7)
    curves = {
        name: (np.linspace(0, 1, len(losses)), losses, colour)
        for (name, losses), colour in zip(held_out.items(), (FEATURE_COLOURS[1], GD), strict=True)
    }
    for share, losses, colour in curves.values():
        axis.plot(share, losses, "o-", color=colour, markersize=3)
    axis.plot([0, 1], [least, least], color="black", linestyle="--")
    axis.text(0, least - 0.02, "Bayes risk", va="top", fontsize=7)
    axis.set(
        title="The learned ridge reaches the Bayes risk",
        xlabel="share of training",
        ylabel="held-out loss",
        ylim=(0, None),
    )
    label_ends(axis, curves)
    return figure


save_picture(draw(), Path("results/tutorial/own_model.png"))
