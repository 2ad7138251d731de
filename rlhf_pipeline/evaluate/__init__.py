"""Measuring the models of a run: the exact judge, win rates, KL, the reward model's accuracy, and their report."""
