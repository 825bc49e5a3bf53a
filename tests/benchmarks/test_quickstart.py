"""What the quickstart gains over its readout, over five seeds: a table for the docs.

``make bench`` prints it. With ``LABCTL_WRITE_TABLES=1`` the page
``docs/reference/quickstart.md`` is written anew.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from labctl.run.execute import execute
from labctl.run.prepare import prepare
from labctl.run.progress import Silent
from labctl.run.setting import Options

SEEDS = range(5)
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "quickstart.md"
HEAD = """\
# The quickstart over seeds

`protocols/quickstart.yaml`: digits through nine camera bins of the simulated bench
`sim`, test accuracy on {test} digits. *Readout* is the best linear readout of the
device as it started; *trained* is the device trained with the learned backward pass;
*oracle* is the same training, from the same start, with the simulator's true gradient.
Every column of a row has the same seed, data and number of training steps. Made by

```sh
LABCTL_WRITE_TABLES=1 make bench
```

| seed | readout | trained | oracle | gain | held-out cosine | budgeted shots |
|---|---|---|---|---|---|---|
"""


@pytest.mark.bench
def test_trained_device_beats_readout_by_ten_points(tmp_path: Path) -> None:
    rows, gains = [], []
    for seed in SEEDS:
        options = Options(seed=seed, out=tmp_path / f"{seed}.h5")
        outcome = execute(prepare("quickstart.yaml", options), Silent())
        result, shots = outcome.result, outcome.shots
        gain = result["score_test"] - result["score_readout"]
        budgeted = sum(shots.values()) - shots["evaluate"]
        gains.append(gain)
        rows.append(
            f"| {seed} | {result['score_readout']:.3f} | {result['score_test']:.3f} "
            f"| {result['score_oracle']:.3f} | {gain:+.3f} "
            f"| {result['cosine']:.2f} ± {result['cosine_error']:.2f} | {budgeted} |"
        )
        print(rows[-1], flush=True)  # noqa: T201 - this is what make bench is for
    mean = float(np.mean(gains))
    half = float(stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains))
    closing = (
        f"\nGain over the readout: {mean:+.3f}, 95 % interval of the paired "
        f"difference {mean - half:+.3f} to {mean + half:+.3f} (Student, "
        f"{len(gains)} seeds).\n"
    )
    print(closing)  # noqa: T201 - this is what make bench is for
    if os.environ.get("LABCTL_WRITE_TABLES") == "1":
        head = HEAD.format(test=397)
        PAGE.write_text(head + "\n".join(rows) + "\n" + closing, encoding="utf-8")
    assert mean >= 0.10
    assert mean - half > 0
