"""Lanes that change when a reduction ends (`Schedule.end_lanes`).

    lanes k=16, tile i=16, end_lanes i=16    16 vectors of partial sums  ->  one vector of 16 sums
    lanes d=16, tile q=16, end_lanes q=16    16 rows of a block          ->  its 16 columns

After the reduction, values are evaluated in the new lanes. What exists in the body's lanes only is
carried over: folds by merging or transposing their accumulators, loads that are contiguous in the
body's lanes alone, and the last states of carries, by transposes. A transpose's rows serve all of
its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from summand.codegen.cpu.lanes import fold_lanes, gather_lanes, merge, transpose
from summand.codegen.cpu.plan import NestPlan, Point
from summand.codegen.cpu.text import Function, Int, Value, constant
from summand.codegen.cpu.values import Values
from summand.errors import InternalError
from summand.loops.nodes import Carry, Fold, Ref


class Relaned(Values):
    """Adds to `Values` the step from the body's lanes to those of the end."""

    def __init__(
        self,
        fn: Function,
        plan: NestPlan,
        outer: dict[str, Int],
        bases: dict[str, Value],
    ) -> None:
        super().__init__(fn, plan, outer, bases)
        self._tables: dict[tuple[str, ...], dict[tuple[int, ...], int]] = {}

    def before(self) -> Callable[[], None]:
        """Go back to the body's lanes; call the result to return to those of the end."""
        now = self.lanes
        self.lanes = self.plan.lanes

        def restore() -> None:
            self.lanes = now

        return restore

    def _sources(self, r: Ref, p: Point) -> tuple[list[Point], list[int]]:
        """For each lane of the end, the point and the lane of the body that hold its element."""
        end, body = self.plan.end, self.plan.lanes
        assert end is not None
        kept = [d for d in body.volume if d in self.plan.deps[r]]
        table = self._lane_table(tuple(kept))
        points: list[Point] = []
        picks: list[int] = []
        for lane in range(end.count):
            at = dict(p)
            for d, along in end.offsets.items():
                at[d] = at.get(d, 0) + along[lane]
            inside = [at.get(d, 0) % body.volume[d] for d in kept]
            for d, v in zip(kept, inside, strict=True):
                at[d] = at.get(d, 0) - v
            points.append(at)
            picks.append(table[tuple(inside)])
        return points, picks

    def _lane_table(self, dims: tuple[str, ...]) -> dict[tuple[int, ...], int]:
        """The first lane of the body at each place along some of its dims."""
        if dims not in self._tables:
            offsets = [self.plan.lanes.offsets[d] for d in dims]
            table: dict[tuple[int, ...], int] = {}
            for lane in range(self.plan.lanes.count):
                table.setdefault(tuple(o[lane] for o in offsets), lane)
            self._tables[dims] = table
        return self._tables[dims]

    def relane(self, r: Ref, p: Point) -> Value:
        """A load or a carried state, which the body's lanes hold, in the lanes of the end."""
        end, body = self.plan.end, self.plan.lanes
        assert end is not None
        kept = [d for d in body.volume if d in self.plan.deps[r]]
        if end.offsets.keys() & set(kept):
            points, picks = self._sources(r, p)
            return self._moved(r, self._rows(r, points), picks)
        # The same vectors serve all places inside the body's lanes: they are a transpose's rows.
        inside = tuple(p.get(d, 0) % body.volume[d] for d in kept)
        start = {**p, **{d: p.get(d, 0) - v for d, v in zip(kept, inside, strict=True)}}
        key = ("rows", *self.key(r, start))
        rows = self.memo.get(key)
        if rows is None:
            rows = self._rows(r, self._sources(r, start)[0])
            self.remember(key, rows)
        assert isinstance(rows, list)
        return self._moved(r, rows, [self._lane_table(tuple(kept))[inside]] * end.count)

    def _rows(self, r: Ref, points: Sequence[Point]) -> list[Value | None]:
        """A value in the body's lanes at several points; None where there is no such point."""
        restore = self.before()
        dims = [d for d in self.plan.deps[r] if d in self.size]
        rows: list[Value | None] = []
        instr = self.plan.code[r]
        for q in points:
            if any(q.get(d, 0) >= self.size[d] for d in dims):
                rows.append(None)
            elif isinstance(instr, Carry):
                rows.append(self.state.get(self.key(r, {**q, instr.dim: 0})))
            else:
                rows.append(self.value(r, q))
        restore()
        return rows

    def _moved(self, r: Ref, rows: list[Value | None], picks: list[int]) -> Value:
        """Lane l of the result is lane picks[l] of rows[l]; transposes are shared between lanes."""
        some = next((v for v in rows if v is not None), None)
        if some is None:
            raise InternalError("codegen: a vector of no lanes at all")
        dtype = self.plan.code[r].dtype
        if not some.type.startswith("<"):
            out = Value("poison", self.widened(some).type)
            for lane, v in enumerate(rows):
                out = out if v is None else self.fn.insert(out, v, lane)
            return Value(out.name, out.type, dtype)
        lanes = self.lanes.count
        names = [v.name if v is not None else "" for v in rows]
        known = {n for n in names if n}
        if (
            len(known) > lanes // 2
            and len(set(picks)) == 1
            and len(known) == lanes - names.count("")
        ):
            key = ("transposed", *names)
            turned = self.memo.get(key)
            if turned is None:
                filled = [constant(0, some.type) if v is None else v for v in rows]
                turned = transpose(self.fn, filled)
                self.remember(key, turned)
            assert isinstance(turned, list)
            out = turned[picks[0]]
        else:
            out = gather_lanes(
                self.fn, [None if v is None else (v, k) for v, k in zip(rows, picks, strict=True)]
            )
        return Value(out.name, out.type, dtype)

    def _one_lane(self, r: Ref, p: Point) -> list[Value]:
        """A fold that is one number at a point of the end: its lane of the body's result."""
        body = self.plan.lanes
        inside = {d: p.get(d, 0) % n for d, n in body.volume.items() if d in self.plan.deps[r]}
        lane = next(
            k for k in range(body.count) if all(body.offsets[d][k] == v for d, v in inside.items())
        )
        restore = self.before()
        found = self.folded(r, {**p, **{d: p.get(d, 0) - v for d, v in inside.items()}})
        restore()
        return [self.fn.extract(v, lane) for v in found]

    def relane_fold(self, r: Ref, p: Point) -> list[Value]:
        """A finished fold's components in the lanes of the end."""
        fold = self.plan.code[r]
        assert isinstance(fold, Fold)
        end = self.plan.end
        assert end is not None
        if not self.plan.deps[r] & end.offsets.keys():
            return self._one_lane(r, p)
        points, picks = self._sources(r, p)
        restore = self.before()
        rows = [self.merged(r, q) for q in points]
        width = self.fold_width(r)
        reduced = self.plan.lanes.bits(frozenset(fold.dims)) if width > 1 else ()
        run = self.combine(fold.combine, self.component_types(fold))
        every = width > 1 and 1 << len(reduced) == width
        if every and len({id(v) for v in rows if v is not None}) > 1:
            out = merge(self.fn, rows, self.identities(fold, width), run)
            restore()
            return out
        if reduced:
            rows = [v and fold_lanes(self.fn, v, width, reduced, run) for v in rows]
        restore()
        return [
            self._moved(a, [None if v is None else v[c] for v in rows], picks)
            for c, a in enumerate(fold.args)
        ]
