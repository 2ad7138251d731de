"""Data without torch: reading sources, recognising formats, splitting by prompt, expanding rankings into pairs."""
