"""Optimise the policy against a reward with PPO, under any launcher: the same as `rlhf ppo`.

accelerate launch --config_file recipes/accelerate/nvlink.yaml recipes/ppo.py --config recipes/tldr-1b/ppo.yaml
"""

import sys

from rlhf_pipeline.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["ppo", *sys.argv[1:]]))
