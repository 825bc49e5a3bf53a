"""Wave optics in pure torch: no files, no devices, no clock and no noise."""
