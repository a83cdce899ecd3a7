"""Survey archives: folders of tiles become pairs, work units, one layer of changes.

Modules are imported by name, so that the command line knows the defaults without rasterio.
"""
