"""`python -m rlhf_pipeline` is `rlhf`."""

from rlhf_pipeline.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
