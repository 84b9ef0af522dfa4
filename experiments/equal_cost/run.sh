#!/usr/bin/env bash
# All methods at equal final tokens, an equal average over layers, and equal FLOPs.
source "$(dirname "$0")/../sweep.sh"
others=none,compose,plus_ivc,ivcp_two_pass,evs,vidcom2
all="glob(*,exclude=[$others])" pruning="glob(*,exclude=[$others,downsample])"
# a smaller image has no budget of FLOPs, and to these models as many tokens as the image
case $model in tiny_llava | llava15* | deepseekvl | gemma3*) all=$pruning ;; esac
sweep boxes pruner="$all" budget=final,layer_average ratio=0.75,0.55 dataset="$boxes"
sweep flops pruner="$pruning" budget=flops ratio=0.75,0.55 dataset="$boxes"
sweep questions pruner="$all" budget=final,layer_average ratio=0.55 dataset="$questions"
# the controls where most methods act, before the language model
sweep early pruner=random,uniform,farthest pruner.layer=0 ratio=0.75,0.55 dataset="$boxes,$questions"
