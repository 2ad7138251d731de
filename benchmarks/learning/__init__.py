"""What PPO learns here and with TRL 1.12, at equal KL: two tasks, several seeds, measured alike on both sides."""
