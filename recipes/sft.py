"""Fine-tune a base checkpoint on demonstrations, under any launcher: the same as `rlhf sft`.

accelerate launch --config_file recipes/accelerate/nvlink.yaml recipes/sft.py --config recipes/tldr-1b/sft.yaml
"""

import sys

from rlhf_pipeline.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["sft", *sys.argv[1:]]))
