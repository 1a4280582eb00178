"""Plan to loop IR: lowering, moves, cost model, the default choice of every schedule."""
