"""fig11: the mix of eight CNNs on a simulated T4, every system over load (workloads/fig11.yaml)."""

import load_sweep
import models


def run(quick: bool, only: set | None, seeds: int = 5, processes: int | None = None):
    models.prepare()
    return load_sweep.run("fig11", "fig11.yaml", quick, seeds, processes)
