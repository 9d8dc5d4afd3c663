# %% [markdown]
# # Your own spectrum
# Any eigenvalues will do, in any basis, and several groups of prompts with spectra and shares of their own. Theory
# follows.

# %%
from pathlib import Path

import jax
import numpy as np
from flax import nnx

import icl_theory as icl
from icl_theory.plotting import GD, draw_run, save_picture

eigenvalues = np.array([1.0, 0.8, 0.3])  # yours
basis = icl.random_basis(jax.random.key(0), 3)
common = icl.TaskDistribution.create(eigenvalues, num_context=40, basis=basis)
rare = icl.TaskDistribution.create(eigenvalues[::-1], num_context=20, noise_std=0.5, basis=basis)  # same directions
mixture = icl.TaskMixture.create([common, rare], np.array([0.8, 0.2]))
features = icl.find_features(mixture)
print("drives:", features.drive.round(3), " plateaus:", icl.nested_plateau_losses(features).round(3))

# %% [markdown]
# With a head aligned with each feature the hitting time is a closed form (notes §5): nothing is fitted. The start is
# small, so that the loss rests between two learning times, where the plateau losses of notes §4 can be read off.

# %%
start, rate = np.full(3, 0.01), 0.002
predicted = icl.hitting_time(0.5, drive=features.drive, optimum=features.optimum, start=start)
loss, _ = icl.make_loss(icl.SeparateAttention(3, 3, rngs=nnx.Rngs(0)), mixture)
run = icl.train(
    loss,
    icl.aligned_parameters(start, features.directions),
    hyperparameters={"learning_rate": rate},
    num_steps=round(1.5 * predicted.max() / rate),
    num_snapshots=2000,
    track=icl.EffectiveMatrix(loss.graphdef),
)
trajectory = run.trajectory(features)
measured = icl.simplicity_bias(trajectory, features).times
print("learning times, predicted:", predicted.round(3))
print("learning times, measured: ", measured.round(3))
plateaus = icl.nested_plateau_losses(features)
levels = np.array([plateau.level for plateau in icl.find_plateaus(trajectory.time, trajectory.loss)])
print("plateau losses, predicted:", plateaus.round(4))
print("plateau losses, measured: ", levels.round(4))

# %%
figure = draw_run(
    trajectory,
    features=features,
    plateaus=plateaus,
    prediction=None,
    threshold=0.5,
    colour=GD,
    title="Two groups of prompts, one head a feature: the loss rests at the predicted plateaus",
)
save_picture(figure, Path("results/tutorial/own_spectrum.png"))

# %% [markdown]
# Groups that share no eigenbasis have no features; the error says so, and what to do.

# %%
other = icl.TaskDistribution.create(eigenvalues, num_context=40, basis=icl.random_basis(jax.random.key(1), 3))
try:
    icl.find_features(icl.TaskMixture.create([common, other], np.array([0.5, 0.5])))
except icl.InputError as error:
    refusal = str(error)
    print("refused:", refusal)
