"""Collecting preferences: sample completions of a model, have them ranked."""
