"""The main job on real data: ``mpiexec -n 2 python -m gamwarm.demo``."""
