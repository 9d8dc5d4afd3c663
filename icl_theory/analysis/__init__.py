"""Trajectories, and what is read off them: learning times, plateaus and simplicity bias."""
