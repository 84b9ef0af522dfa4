#!/usr/bin/env bash
# IVC tokens against tokens that are spread alike, alone and in a part of other methods' budgets.
source "$(dirname "$0")/../sweep.sh"
tasks="dataset=$boxes,$questions"
sweep ivc pruner=ivc ratio=0.5,0.3,0.1 $tasks
sweep base pruner=ivc pruner.rope_base=100,1000000 ratio=0.5,0.3,0.1 $tasks
sweep offset pruner=ivc pruner.offset=37,101 ratio=0.5,0.3,0.1 $tasks
sweep random pruner=random pruner.seed=0,1,2 ratio=0.5,0.3,0.1 $tasks
sweep spread pruner=uniform,farthest ratio=0.5,0.3,0.1 $tasks
for base in foreground fastv vispruner; do
    at=()
    [ $base = fastv ] && at=(pruner.base.layer="$middle" pruner.base.prune_earlier_kv=true)
    plus=(pruner=plus_ivc pruner@pruner.base=$base "${at[@]}" ratio=0.5,0.3 dataset="$boxes")
    sweep "$base" "${plus[@]}" pruner.share=0,0.4
    sweep "$base-base" "${plus[@]}" pruner.rope_base=100,1000000
    sweep "$base-offset" "${plus[@]}" pruner.offset=37,101
    sweep "$base-random" "${plus[@]}" pruner.added=random pruner.seed=0,1,2
    sweep "$base-farthest" "${plus[@]}" pruner.added=farthest
done
# alone again, where IVC-Prune is best: late, with little left
late=(pruner.layer="$late" ratio=0.3,0.1 dataset="$boxes")
sweep late-ivc pruner=ivc "${late[@]}"
sweep late-base pruner=ivc pruner.rope_base=100,1000000 "${late[@]}"
sweep late-offset pruner=ivc pruner.offset=37,101 "${late[@]}"
sweep late-spread pruner=uniform,farthest "${late[@]}"
sweep late-random pruner=random pruner.seed=0,1,2 "${late[@]}"
