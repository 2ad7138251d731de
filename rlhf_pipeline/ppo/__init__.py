"""PPO on TRL's rollout engine: the maths (torch only), the critic, and the trainer that joins them."""
