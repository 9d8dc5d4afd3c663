# %% [markdown]
# # Your own data
# Arrays of yours make prompts: inputs x (P, N, D), labels y (P, N), and a query with its label for each prompt. Here
# the inputs are heavy-tailed and correlated: no spectrum is given, and the theory for normal inputs is not exact.

# %%
from pathlib import Path

import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import GD, draw_run, save_picture

random = np.random.default_rng(0)
mixing = np.array([[1.0, 0.3, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 0.6]])
inputs = random.standard_t(df=8, size=(4000, 21, 3)) @ mixing
labels = np.einsum("pnd,pd->pn", inputs, random.normal(size=(4000, 3)))
prompts = icl.Prompts.from_arrays(inputs[:, :20], labels[:, :20], inputs[:, 20], labels[:, 20])
print("prompts:", prompts.x.shape, " mean square label:", round(float(np.mean(labels[:, 20] ** 2)), 3))

# %% [markdown]
# The features are the eigendirections of your inputs; drives and curvatures are averages over your prompts. The
# plateaus follow from them.

# %%
features = icl.estimate_features(prompts)
plateaus = icl.nested_plateau_losses(features)
print("drives:", features.drive.round(3), " plateaus:", plateaus.round(3))

# %% [markdown]
# The 4000 prompts are compressed to their moments, so that a step costs the same as with four.

# %%
loss, params = icl.make_loss(icl.SeparateAttention(3, 3, init_scale=0.02, rngs=nnx.Rngs(0)), prompts)
run = icl.train(
    loss,
    params,
    hyperparameters={"learning_rate": 0.01},
    num_steps=400_000,
    num_snapshots=3000,
    track=icl.EffectiveMatrix(loss.graphdef),
)
trajectory = run.trajectory(features)
bias = icl.simplicity_bias(trajectory, features)
levels = np.array([plateau.level for plateau in icl.find_plateaus(trajectory.time, trajectory.loss)])
print("learning times t_d:", bias.times.round(1), " ratios:", bias.ratios.round(2))
print("measured plateaus:", levels.round(3))

# %% [markdown]
# With normal inputs each feature would stop at its plateau exactly. Heavy tails couple the features: the strengths move
# again when another is learned. The first plateau is met, the second lies 4 % above its prediction, the last 16 %.

# %%
figure = draw_run(
    trajectory,
    features=features,
    plateaus=plateaus,
    prediction=None,
    threshold=0.5,
    colour=GD,
    title="Heavy-tailed inputs: the later the plateau, the farther above its prediction",
)
for axis in figure.axes:
    axis.set_xscale("log")
    axis.set_xlim(5, None)
save_picture(figure, Path("results/tutorial/own_data.png"))
