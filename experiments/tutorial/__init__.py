"""The way in: five steps from one prompt to the verification table, then bring what is your own.

Read in order: `step1_prompt`, `step2_features`, `step3_training`, `step4_sam_and_data`, `step5_table`; `own_data`,
`own_spectrum`, `own_optimizer`, `own_model`, `own_claim`. Each runs in some seconds,
`python -m experiments.tutorial.step1_prompt`, leaves a picture in `results/tutorial/`, and opens as a notebook wherever
`# %%` cells do. `make docs` shows them with their output, each for download as `.ipynb`.
"""
