"""The way in: five steps from one prompt to the verification table, then bring your own spectrum, optimizer and model.

Read in order: `step1_prompt`, `step2_features`, `step3_training`, `step4_sam_and_data`, `step5_table`; `own_spectrum`,
`own_optimizer`, `own_model`. Each runs in some seconds, `python -m experiments.tutorial.step1_prompt`, opens as a
notebook wherever `# %%` cells do, and those that draw leave a picture in `results/tutorial/`.
"""
