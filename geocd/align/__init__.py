"""Co-registration: estimate a motion, judge it on held-out tie points, apply it once."""
