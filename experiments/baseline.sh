#!/usr/bin/env bash
# The unpruned model on the scenes of all studies: experiments/baseline.sh tiny
source "$(dirname "$0")/sweep.sh"
study=unpruned
sweep test pruner=none dataset="$boxes,$questions"
more+=("$validation")
sweep val pruner=none dataset="$boxes"
