#!/usr/bin/env bash
# The layer beyond which no method beats random tokens, for boxes and for questions.
source "$(dirname "$0")/../sweep.sh"
at=(pruner.prune_earlier_kv=true ratio=0.5,0.3,0.1 dataset=shapes,shapes_pope)
sweep methods pruner=ivc,fastv,ivcp 'pruner.layer=range(1,8)' "${at[@]}"
sweep random pruner=random pruner.seed=0,1,2 'pruner.layer=range(1,8)' "${at[@]}"
# where each signal finds the true box: what a selection before each layer keeps of it
sweep diagnose pruner=foreground,fastv,ivc,random 'pruner.layer=range(1,8)' \
    pruner.prune_earlier_kv=true ratio=0.3,0.1 dataset=shapes generation.max_new_tokens=1
