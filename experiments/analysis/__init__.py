"""Tables and plots of the studies: `python -m experiments.analysis`."""
