"""Train a reward model on rankings, under any launcher: the same as `rlhf reward`.

accelerate launch --config_file recipes/accelerate/nvlink.yaml recipes/reward.py --config recipes/tldr-1b/reward.yaml
"""

import sys

from rlhf_pipeline.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["reward", *sys.argv[1:]]))
