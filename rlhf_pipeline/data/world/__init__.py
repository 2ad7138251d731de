"""The miniature world: a generated domain where truth is known, so that every claim about the pipeline can be checked on a CPU."""
