"""Reinforcement learning from human feedback on the Hugging Face stack: SFT, reward modelling, PPO."""

__version__ = "0.1.0"
