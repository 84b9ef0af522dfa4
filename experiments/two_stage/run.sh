#!/usr/bin/env bash
# Seeds as queries against text alone, at each depth; and what choosing the layer on validation does.
source "$(dirname "$0")/../sweep.sh"
sweep seeds pruner=foreground,ivcp pruner.seed_ratio=0,0.01 "$layers" ratio=0.5,0.3 dataset="$boxes"
layered=(pruner=ivcp,ivc,foreground,fastv,dart,random,uniform,farthest "$layers"
         pruner.prune_earlier_kv=true dataset="$boxes")
sweep test "${layered[@]}"
more+=("$validation")
sweep val "${layered[@]}"
