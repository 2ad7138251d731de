"""`rlhf doctor`: what is wrong with this machine, these machines or these settings, before anything is started."""
