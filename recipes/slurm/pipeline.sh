#!/usr/bin/env bash
# SFT, then the reward model, then PPO: three jobs, each of which starts when the one before has succeeded.
# PPO_ARGS="--gradient_accumulation_steps 2" recipes/slurm/pipeline.sh tldr-1b --run tldr --artifacts /shared/artifacts
#
# Every setting after the recipe's name goes to all three stages; SFT_ARGS, REWARD_ARGS and PPO_ARGS to one, split at
# blanks. A recipe's batch is that of one GPU: divide it by the number of processes, as docs/cluster.md shows.
set -euo pipefail
cd "$(dirname "$0")/../.."

recipe="${1:-}"
if [ ! -f "recipes/$recipe/ppo.yaml" ]; then
    echo "usage: [SFT_ARGS=...] [REWARD_ARGS=...] [PPO_ARGS=...] recipes/slurm/pipeline.sh RECIPE [setting ...]" >&2
    echo "RECIPE is a folder of recipes/, as tldr-1b; not \`$recipe\`" >&2
    exit 2
fi
shift
after=""
for stage in sft reward ppo; do
    own="${stage^^}_ARGS"
    read -r -a own <<< "${!own:-}"
    job="$(sbatch --parsable --job-name="rlhf-$stage" ${after:+--dependency=afterok:$after --kill-on-invalid-dep=yes} \
        recipes/slurm/stage.sbatch "$stage" --config "recipes/$recipe/$stage.yaml" "$@" ${own[@]+"${own[@]}"})"
    echo "$stage: job $job${after:+, after $after}"
    after="${job%%;*}"
done
