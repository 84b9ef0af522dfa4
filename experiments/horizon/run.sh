#!/usr/bin/env bash
# The layer beyond which no method beats random tokens, for boxes and for questions.
source "$(dirname "$0")/../sweep.sh"
at=("$layers" pruner.prune_earlier_kv=true)
for task in "boxes $boxes ratio=0.5,0.3,0.1" "questions $questions ratio=0.3,0.1"; do
    read -r name dataset ratio <<< "$task"
    sweep "methods-$name" pruner=ivc,fastv,ivcp "${at[@]}" "$ratio" dataset="$dataset"
    sweep "random-$name" pruner=random pruner.seed=0,1,2 "${at[@]}" "$ratio" dataset="$dataset"
done
experiment=diagnose sweep diagnose "$layers" dataset="$boxes"
