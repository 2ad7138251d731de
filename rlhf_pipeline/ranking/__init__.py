"""Reward modelling from rankings: all comparisons of a prompt's K completions in one element of a batch."""
