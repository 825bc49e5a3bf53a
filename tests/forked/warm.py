"""What a run that a test forks need not pay for again: imports and first uses.

Imported by the server of ``fork`` only, never by a test.
"""

import sklearn.datasets
import torch

import drivers.sim.camera
import labctl.comparison.run
from labctl.recording import environment

__all__ = ["drivers", "labctl", "sklearn"]
# Two threads wait for each other on a busy computer.
torch.set_num_threads(1)
# The first use loads a second's worth of torch.
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
environment._git = lambda _root: ("", "", False)  # type: ignore[assignment]
environment.capture()
