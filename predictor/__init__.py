"""Import paths of the documented Python API; everything in here comes from `training`."""
