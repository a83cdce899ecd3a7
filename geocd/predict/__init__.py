"""From window pairs to scores: one Predictor protocol, one file a backend."""
