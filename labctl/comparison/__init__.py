"""Many trainings, one summary: methods compared on tasks, paired by seed."""
