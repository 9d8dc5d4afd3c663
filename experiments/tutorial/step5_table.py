# %% [markdown]
# # Step 5: the verification table
# Each claim is a module of `icl_theory.verification.claims`: `Settings` with every number, `measure` that simulates and
# returns a labelled data set, and statements, functions that read a prediction and a measurement off it. The tolerance
# stands beside each.

# %%
from icl_theory.verification import NAMES, load_claim, verify
from icl_theory.verification.table import print_table

for name, title in NAMES.items():
    print(f"{name:22} {title}")

# %% [markdown]
# The claim on fixed points takes seconds: are all 2^D predicted points fixed points, with the predicted losses? Judged
# in float64.

# %%
rows = verify([load_claim("fixed_points")], float32=False)
print_table(rows)

# %% [markdown]
# The rest, from a shell: `icl-theory verify --only dynamics,softmax` for single groups,
# `python -m experiments run low_rank` for the data of one, `python -m figures low_rank` for its picture,
# `make reproduce` for all of it on one page.
