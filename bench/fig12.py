"""fig12: resnet18 and inceptionv3, the two extremes of fig11 (workloads/fig12.yaml)."""

import load_sweep
import models


def run(quick: bool, only: set | None, seeds: int = 5, processes: int | None = None):
    models.prepare()
    return load_sweep.run("fig12", "fig12.yaml", quick, seeds, processes)
