"""How good is it: metrics and baselines."""
