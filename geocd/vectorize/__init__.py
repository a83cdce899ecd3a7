"""From change maps to change polygons."""
