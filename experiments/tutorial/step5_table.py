# %% [markdown]
# # Step 5: the verification table
# Each claim is a module of `icl_theory.verification`: `Settings` with every number, `measure` that simulates and returns arrays, and
# `statements` that reads predictions and measurements off them, with a tolerance that stands in the code.

# %%
from icl_theory.verification import CLAIMS, verify
from icl_theory.verification.table import print_table

for claim in CLAIMS:
    print(f"{claim.letter}  {claim.title}")

# %% [markdown]
# Claim B takes seconds: are all 2^D predicted points fixed points, with the predicted losses? Judged in float64.

# %%
fixed_points = next(claim for claim in CLAIMS if claim.name == "fixed_points")
rows = verify([fixed_points], float32=False)
print_table(rows)

# %% [markdown]
# The rest, from a shell: `icl-theory verify --only C,D` for single letters, `python -m experiments run low_rank` for the data of one,
# `python -m figures low_rank` for its picture, `make reproduce` for all of it on one page.
