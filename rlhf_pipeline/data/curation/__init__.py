"""Curation: which rows are trained on, which are evaluated on, and the proof that the two share nothing."""
