"""Reading and writing georeferenced rasters: grids, scenes, pairs."""
