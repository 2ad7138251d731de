#!/usr/bin/env bash
# SFT, then the reward model, then PPO: three jobs, each of which starts when the one before has succeeded.
# recipes/slurm/pipeline.sh tldr-1b --run tldr --artifacts /shared/artifacts
#
# Every setting after the recipe's name goes to all three stages.
set -euo pipefail
cd "$(dirname "$0")/../.."

recipe="$1"
shift
after=""
for stage in sft reward ppo; do
    job="$(sbatch --parsable --job-name="rlhf-$stage" ${after:+--dependency=afterok:$after} \
        recipes/slurm/stage.sbatch "$stage" --config "recipes/$recipe/$stage.yaml" "$@")"
    echo "$stage: job $job${after:+, after $after}"
    after="${job%%;*}"
done
