"""HDF5 in and out: one file a run, written live, read at any time."""
