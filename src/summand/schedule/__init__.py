"""Plan to loop IR: lowering, moves, cost model, the default choice of every schedule.

lower.py, lower_*.py, unit.py, task.py   a plan becomes kernels without schedules
choose.py        the entry of scheduling: a kernel of one nest is tiled, packed and spread over
                 tasks; of a larger one, each nest gets a schedule
nests.py         one nest: its form, lanes, tile, order of loops, unrolling
registers.py     candidates for lanes and register tiles
cost.py          what a candidate costs;  outcome.py  what a whole kernel is predicted to cost
accesses.py      who depends on which dim, with which stride
moves.py guards.py grid.py pack.py block.py partials.py ahead.py   the moves
"""
