# %% [markdown]
# # Step 5: the verification table
# Each claim is a module of `icl_theory.verification.claims`: `Settings` with every number, `measure` that simulates and
# returns a labelled data set, and statements, functions that read a prediction and a measurement off it. The tolerance
# stands beside each.

# %%
from pathlib import Path

from icl_theory.plotting import GD, PAGE, new_figure, save_picture, styled
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
# Error of each equality as a share of its tolerance. Beyond the dashed line it would fail.


# %%
@styled
def draw():
    """Error over tolerance of each statement."""
    figure, ((axis,),) = new_figure(PAGE, 2.6)
    shares = [max(row.statement.error / row.statement.tolerance, 1e-6) for row in rows if row.statement.tolerance]
    names = [row.statement.name.partition("/")[2].replace("_", " ") for row in rows if row.statement.tolerance]
    axis.barh(names, shares, color=GD, left=1e-6)
    axis.axvline(1.0, color="black", linestyle="--")
    axis.set(title=f"{sum(share < 1 for share in shares)} of {len(shares)} errors are below their tolerance")
    axis.set(xlabel="error / tolerance, where numbers are compared", xscale="log", xlim=(1e-6, 3))
    axis.invert_yaxis()
    return figure


save_picture(draw(), Path("results/tutorial/step5_table.png"))

# %% [markdown]
# The rest, from a shell: `icl-theory verify --only dynamics,softmax` for single groups, `python -m experiments run
# low_rank` for the data of one, `python -m figures low_rank` for its picture, `make reproduce` for all of it on one
# page.
