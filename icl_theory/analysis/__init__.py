"""Trajectories and the quantities measured on them: learning times, plateaus and simplicity bias."""
