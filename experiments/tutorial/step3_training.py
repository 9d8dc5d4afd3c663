# %% [markdown]
# # Step 3: train, and see the plateaus
# Gradient descent on infinite data, that is, on the exact mean over prompts. Rank-one attention has one key and one
# query vector a head. The smaller the start, the longer the loss rests. Time is learning rate × step.

# %%
from pathlib import Path

import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import GD, draw_run, save_picture

mixture = icl.TaskMixture.single(icl.linear_spectrum(4), num_context=31)
features = icl.find_features(mixture)
model = icl.SeparateAttention(dim=4, num_heads=5, init_scale=0.02, rngs=nnx.Rngs(0))
loss, params = icl.make_loss(model, mixture)
run = icl.train(
    loss,
    params,
    hyperparameters={"learning_rate": 0.1},
    num_steps=150_000,
    track=icl.EffectiveMatrix(loss.graphdef),
    num_snapshots=3000,
)
trajectory = run.trajectory(features)

# %% [markdown]
# A feature is learned when its strength reaches half of its optimum; simplicity bias is how much later the slow ones
# are (notes §7).

# %%
bias = icl.simplicity_bias(trajectory, features)
print("learning times t_d:", bias.times.round(0))
print("ratios t_d/t_1:    ", bias.ratios.round(2))

# %% [markdown]
# Between two learning times the loss rests. Below is its level where it is flattest, for each rest, beside the nearest
# predicted plateau. A plateau is skipped where two features are learned nearly at once.

# %%
predicted = icl.nested_plateau_losses(features)
levels = np.array([plateau.level for plateau in icl.find_plateaus(trajectory.time, trajectory.loss)])
nearest = predicted[np.argmin(np.abs(levels[:, None] - predicted), axis=1)]
print("all predicted:    ", predicted.round(3))
print("measured:         ", levels.round(3))
print("nearest predicted:", nearest.round(3))

# %%
figure = draw_run(
    trajectory,
    features=features,
    plateaus=predicted,
    prediction=None,
    threshold=0.5,
    colour=GD,
    title="From a small start, simple features are learned first, with rests between",
)
for axis in figure.axes:
    axis.set_xscale("log")
    axis.set_xlim(50, None)
save_picture(figure, Path("results/tutorial/step3_training.png"))
