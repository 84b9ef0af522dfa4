#!/usr/bin/env bash
# Every method with its tokens' own positions, gapless ones, and shuffled ones.
source "$(dirname "$0")/../sweep.sh"
methods='glob(*,exclude=[none,downsample,compose,plus_ivc,ivcp_two_pass,evs,vidcom2])'
sweep all pruner="$methods" pruner.renumber=false,ranks,shuffled dataset=shapes,shapes_pope
