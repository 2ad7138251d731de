"""The miniature world: a generated domain where truth is known, so that every claim can be checked on a CPU."""
