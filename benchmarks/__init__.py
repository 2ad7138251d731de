"""Benchmarks of PPO against TRL's own trainer; README.md beside this file says what is measured. Not in the package."""
