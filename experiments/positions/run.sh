#!/usr/bin/env bash
# Every method with its tokens' own positions, gapless ones, and shuffled ones.
source "$(dirname "$0")/../sweep.sh"
methods='glob(*,exclude=[none,downsample,compose,plus_ivc,ivcp_two_pass,evs,vidcom2])'
sweep all pruner="$methods" pruner.renumber=false,ranks,shuffled dataset="$boxes,$questions"
# how wide a gap must be: 1, 7 or 14 of 144 tokens leave
sweep gaps pruner=random pruner.layer="$middle" pruner.renumber=false,ranks,shuffled ratio=0.99,0.95,0.9 \
    dataset="$boxes,$questions"
