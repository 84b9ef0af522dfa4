#!/usr/bin/env bash
# All methods at equal final tokens, an equal average over layers, and equal FLOPs.
source "$(dirname "$0")/../sweep.sh"
methods='glob(*,exclude=[none,compose,plus_ivc,ivcp_two_pass,evs,vidcom2])'
counts=(budget=final,layer_average,flops ratio=0.75,0.55)
sweep boxes pruner="$methods" "${counts[@]}" dataset="$boxes"
sweep questions pruner="$methods" budget=final,layer_average ratio=0.55 dataset="$questions"
# the controls where most methods act, before the language model
sweep early pruner=random,uniform,farthest pruner.layer=0 ratio=0.75,0.55 dataset="$boxes,$questions"
