"""How processes are started: by accelerate, torchrun or MPI, checked here and never replaced."""
