#!/usr/bin/env bash
# Seeds as queries against text alone, at each depth; and what choosing the layer on validation does.
source "$(dirname "$0")/../sweep.sh"
layers='pruner.layer=range(1,8)'
sweep seeds pruner=foreground,ivcp pruner.seed_ratio=0,0.01 "$layers" ratio=0.5,0.3 dataset=shapes
layered=(pruner=ivcp,ivc,foreground,fastv,dart,random,uniform,farthest "$layers"
         pruner.prune_earlier_kv=true dataset=shapes)
sweep test "${layered[@]}"
more+=("$validation")
sweep val "${layered[@]}"
