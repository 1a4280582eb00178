"""The `summand` command.

    summand demo [--epochs N] [--compare torch] [--resume FILE] [--json FILE]
    summand doctor
    summand explain model:attention 'f32{t=512,d=64}' 'f32{t=512,d=64}' --run
    summand cache [--clear]

`explain` takes each argument as a type, whose dims are those of the module with these names, or as
a number. Without any it asks `attention_arguments()` or `arguments()` of the module for them.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from rich.console import Console
from rich.table import Table

import summand
from summand import api, dtypes, explain
from summand.errors import ArgumentError, SummandError
from summand.explain import doctor
from summand.lang.array import Dim
from summand.runtime import cache


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="summand", description=summand.__doc__)
    parser.add_argument("--version", action="version", version=f"summand {summand.__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="train a capsule network on real digits")
    commands.add_parser("doctor", help="show what was found on this machine")
    _explain_arguments(commands.add_parser("explain", help="show what a function compiles to"))
    store = commands.add_parser("cache", help="show the cache of compiled programs")
    store.add_argument("--clear", action="store_true", help="delete all compiled programs")
    console = Console()
    try:
        training = _training() if words[:1] == ["demo"] else None
        if training is not None:
            training.arguments(demo)
        options = parser.parse_args(words)
        match options.command:
            case "demo" if training is not None:
                return int(training.main(options))
            case "doctor":
                return _doctor(console)
            case "explain":
                return _explain(options, console)
            case _:
                return _cache(options.clear, console)
    except SummandError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1  # the reader (head, less) has seen enough


# ---- demo


def _training() -> ModuleType:
    """The demo's training module, which lives beside the package in a checkout."""
    for root in (Path(__file__).parents[2], Path.cwd()):
        if (root / "examples" / "digits" / "train.py").exists():
            sys.path.insert(0, str(root))
            return _import("examples.digits.train")
    raise ArgumentError(
        "the demo is a part of the project's repository, not of the installed package\n"
        "Run it from a checkout: make demo."
    )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        advice = "Install it." if missing != name else "Run the command where it can be imported."
        raise ArgumentError(f"there is no module {missing}\n{advice}") from error


# ---- doctor, cache


def _doctor(console: Console) -> int:
    table = Table(title=f"Summand {summand.__version__}", show_header=False)
    with console.status("measuring"):
        for name, value in doctor.findings():
            table.add_row(name, value)
    console.print(table)
    return 0


def _cache(clear: bool, console: Console) -> int:
    if clear:
        count = cache.default().clear()
        console.print(f"{count} compiled programs deleted from {cache.default().folder}")
    else:
        console.print(doctor.cache_text())
    return 0


# ---- explain


def _explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument("arguments", nargs="*", metavar="ARGUMENT", help="'f32{i=64,j=8}', or 0.5")
    parser.add_argument("--run", action="store_true", help="run it, and measure each kernel")
    parser.add_argument("--stage", help="show this stage instead: traced, fused, loops, llvm, …")


def _explain(options: argparse.Namespace, console: Console) -> int:
    module_name, colon, name = str(options.function).partition(":")
    if not colon or not name:
        raise ArgumentError(
            f"{options.function!r} names no function\nWrite MODULE:FUNCTION, as in model:attention."
        )
    sys.path.insert(0, str(Path.cwd()))
    module = _import(module_name)
    function = getattr(module, name, None)
    if not callable(function):
        raise ArgumentError(f"{module_name} has no function {name}")
    arguments = _arguments(module, name, options.arguments)
    if options.stage:
        compiled = function if isinstance(function, api.Jit) else api.jit(function)
        text = compiled.inspect(options.stage, *arguments)
    else:
        text = explain.explain(function, arguments, run=options.run)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


def _arguments(module: ModuleType, name: str, words: Sequence[str]) -> tuple[object, ...]:
    """Arguments from the command line, or from the module's own function for that."""
    if words:
        rng = np.random.default_rng(0)
        return tuple(_argument(module, word, rng) for word in words)
    for maker in (f"{name}_arguments", "arguments"):
        found = getattr(module, maker, None)
        if callable(found):
            return tuple(found())
    return ()


def _argument(module: ModuleType, word: str, rng: np.random.Generator) -> object:
    """`f32{i=64,j=8}` as random data with the module's dims i and j; `0.5` as a number."""
    found = re.fullmatch(r"(\w+)\{([^}]*)\}", word.replace(" ", ""))
    if not found:
        try:
            return float(word)
        except ValueError:
            raise ArgumentError(
                f"{word!r} is neither a type nor a number\nWrite a type as 'f32{{i=64,j=8}}'."
            ) from None
    dtype = dtypes.BY_NAME.get(found.group(1))
    if dtype is None:
        raise ArgumentError(f"{found.group(1)} is no element type; there are {dtypes.ALL}")
    sizes = dict(part.split("=", 1) for part in found.group(2).split(",") if "=" in part)
    dims = [_dim(module, dim) for dim in sizes]
    values = rng.standard_normal([int(n) for n in sizes.values()])
    return summand.array(values.astype(dtype.numpy), *dims)


def _dim(module: ModuleType, name: str) -> Dim:
    """The module's dim of this name: a variable that is one, or one that is spelled so."""
    found = [v for v in vars(module).values() if isinstance(v, Dim) and v.name == name]
    if not found:
        raise ArgumentError(f"{module.__name__} has no dim {name}")
    return found[0]
