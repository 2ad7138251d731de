"""`rlhf plan`: what a stage needs in memory and time on given GPUs, by arithmetic, before anything is started.

`networks` counts parameters, `states` and `activations` hold the formulas, `memory` and `seconds` add them up for a
stage, `choices` compares the ways to share it out, `launch_writer` writes the launch file of one of them. Left out:
everything that only a run can tell, such as fragmentation (a reserve is kept back instead).
"""
