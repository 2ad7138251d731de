"""The stages of the pipeline; each reads top to bottom, and none imports another."""
