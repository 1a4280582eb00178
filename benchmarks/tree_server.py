"""python benchmarks/tree_server.py TREE: rows of the benchmark, run by a tree's own code.

One end of `benchmarks.compare`. It is a script: nothing is imported before the tree is first on the
path.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def main(root: Path) -> None:
    """Answer requests for the tree at `root`."""
    sys.path[:1] = [str(root), str(root / "src")]  # in place of this file's folder
    import summand
    from benchmarks.offroad.peer import Job
    from benchmarks.processes import serve

    if root not in Path(summand.__file__).parents:
        raise SystemExit(f"{summand.__file__} is not of {root}")

    def ready(request: dict[str, object]) -> tuple[Callable[[], object], dict[str, object]]:
        job = Job(request["row"], request["which"], request["seed"])
        run = job.case().runner(job.which)
        run()
        # with a seed the results are asked for in orders that `inspect` does not know
        loops = run.compiled.inspect("loops", *run.arguments) if job.seed is None else ""
        return run, {"loops": loops}

    serve(ready)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
