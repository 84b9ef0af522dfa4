#!/usr/bin/env bash
# The layer beyond which no method beats random tokens, for boxes and for questions.
source "$(dirname "$0")/../sweep.sh"
at=('pruner.layer=range(1,8)' pruner.prune_earlier_kv=true)
for task in "shapes ratio=0.5,0.3,0.1" "shapes_pope ratio=0.3,0.1"; do
    read -r dataset ratio <<< "$task"
    sweep "methods-$dataset" pruner=ivc,fastv,ivcp "${at[@]}" "$ratio" dataset="$dataset"
    sweep "random-$dataset" pruner=random pruner.seed=0,1,2 "${at[@]}" "$ratio" dataset="$dataset"
done
experiment=diagnose sweep diagnose
