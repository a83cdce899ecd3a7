"""Writing change polygons for people: GeoPackage and friends, with styles."""
