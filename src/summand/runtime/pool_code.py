"""The machine code of the thread pool, as LLVM text: `drain`, `worker`, `run`, `stop`, `calibrate`.

    run(pool, call)  executes the program of `call`, a list of words:

        launch f tasks=8 args=0 tick=0 count=2: 0 3   f with buffers 0 and 3, 8 tasks on all threads
        unless 4 -> 17                                jump where the bool in buffer 4 is false
        copy 2 -> 3, 4096 bytes
        back -> 0                                     jump, or return to Python for a moment
        turn 40 -> 0                                  39 times back, then on
        host 0                                        Python runs a function, then goes on
        end

There is one control block, of words that different threads write on cache lines of their own.

A launch's tasks are numbered from 0; in the round r of a loop that ends with `turn`, from r times
their number. `round` counts, and is 0 outside of such loops.

A launch publishes its job, then sets `remaining` to the number of tasks. Whoever takes `remaining`
from r > 0 to r - 1 owns task `total - r`, and reads the job only then: it cannot change before that
task is done. `done` counts finished tasks, not threads, so a late worker is never waited for. A
worker that found nothing for a while (longer while a launch is not finished: the next one follows)
counts itself in `sleepers`, looks once more, and sleeps on `seq`; the launcher raises `seq` after
publishing and wakes sleepers if there are any.

`busy` is taken by the caller whose launch the workers serve. Another caller who finds it taken runs
its launch alone, so no caller ever waits for another, nor holds a lock across a fork or signal.

Without futexes (not Linux) a worker returns to Python to sleep, and `wake` is a Python callback.
"""

from __future__ import annotations

from typing import Final

LINE: Final = 16  # words of 8 bytes in two cache lines (processors fetch pairs)

# word of the control block -> its place
POOL: Final = {
    "seq": 0 * LINE,
    "remaining": 1 * LINE,
    "done": 2 * LINE,
    "function": 3 * LINE,
    "arguments": 3 * LINE + 1,
    "total": 3 * LINE + 2,
    "scratch": 3 * LINE + 3,
    "stride": 3 * LINE + 4,
    "first": 3 * LINE + 5,
    "busy": 4 * LINE,
    "stop": 5 * LINE,
    "workers": 5 * LINE + 1,
    "spin": 5 * LINE + 2,
    "wake": 5 * LINE + 3,
    "yield": 5 * LINE + 4,
    "sleepers": 6 * LINE,
}
POOL_WORDS: Final = 7 * LINE

# word of a call's block -> its place
CALL: Final = {
    "code": 0,
    "pc": 1,
    "slots": 2,
    "args": 3,
    "scratch": 4,
    "stride": 5,
    "ticks": 6,
    "budget": 7,
    "round": 8,
}
CALL_WORDS: Final = len(CALL)
PC, SCRATCH, BUDGET, ROUND = CALL["pc"], CALL["scratch"], CALL["budget"], CALL["round"]

PATIENCE: Final = 4  # how much longer a worker spins while others finish the launch

END, LAUNCH, COPY, JUMP, UNLESS, BACK, HOST, TURN = range(8)
LAUNCH_WORDS: Final = 6  # launch, function, tasks, place of the arguments, tick, count; then slots
WORDS: Final = {COPY: 4, JUMP: 2, UNLESS: 3, BACK: 2, HOST: 2, TURN: 3}

FUTEX_CALL: Final = {"x86_64": 202, "aarch64": 98}  # the system call's number, on Linux
# What tells the core that it spins: the intrinsic's declaration and its call. Elsewhere a counter
# is read, which at least takes some time.
_PAUSE = {
    "x86_64": ("void @llvm.x86.sse2.pause()", "llvm.x86.sse2.pause()"),
    "aarch64": ("void @llvm.aarch64.isb(i32)", "llvm.aarch64.isb(i32 15)"),
}
_CLOCK = {"x86_64": "llvm.readcyclecounter"}  # elsewhere the steady counter is the readable one


def _fields(names: str, block: dict[str, int], base: str) -> str:
    return "\n".join(
        f"  %{name} = getelementptr i64, ptr %{base}, i64 {block[name]}" for name in names.split()
    )


def _pool(names: str) -> str:
    return _fields(names, POOL, "pool")


def _call(names: str) -> str:
    return _fields(names, CALL, "call")


_DRAIN = f"""
define internal void @drain(ptr %pool, i64 %participant) {{
entry:
{_pool("remaining done function arguments total scratch stride first")}
  br label %claim
claim:
  %left = atomicrmw sub ptr %remaining, i64 1 acq_rel
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %work, label %out
work:
  %f = load ptr, ptr %function
  %a = load ptr, ptr %arguments
  %n = load i64, ptr %total
  %base = load ptr, ptr %scratch
  %step = load i64, ptr %stride
  %lowest = load i64, ptr %first
  %number = sub i64 %n, %left
  %task = add i64 %lowest, %number
  %offset = mul i64 %participant, %step
  %own = getelementptr i8, ptr %base, i64 %offset
  call void %f(ptr %a, i64 %task, ptr %own)
  %before = atomicrmw add ptr %done, i64 1 acq_rel
  br label %claim
out:
  ret void
}}
"""

# The worker's `sleep` block ends in SLEEP: it waits on the futex and goes on, or returns to Python.
_WORKER = f"""
define i64 @worker(ptr %pool, i64 %participant, i64 %slept) {{
entry:
{_pool("seq remaining busy stop spin sleepers")}
  %counted = atomicrmw sub ptr %sleepers, i64 %slept seq_cst
  br label %again
again:
  %limit = load i64, ptr %spin
  br label %look
look:
  %turn = phi i64 [ 0, %again ], [ %next, %pause ]
  %r = load atomic i64, ptr %remaining monotonic, align 8
  %some = icmp sgt i64 %r, 0
  br i1 %some, label %work, label %idle
work:
  call void @drain(ptr %pool, i64 %participant)
  br label %again
idle:
  %s = load atomic i64, ptr %stop monotonic, align 8
  %stopped = icmp ne i64 %s, 0
  br i1 %stopped, label %out, label %pause
pause:
  call void @PAUSE
  %b = load atomic i64, ptr %busy monotonic, align 8
  %within = icmp ne i64 %b, 0
  %step = select i1 %within, i64 1, i64 {PATIENCE}
  %next = add i64 %turn, %step
  %more = icmp slt i64 %next, %limit
  br i1 %more, label %look, label %sleep
sleep:
  %mine = atomicrmw add ptr %sleepers, i64 1 seq_cst
  %now = load atomic i64, ptr %seq seq_cst, align 8
  %r2 = load atomic i64, ptr %remaining seq_cst, align 8
  %s2 = load atomic i64, ptr %stop seq_cst, align 8
  %some2 = icmp sgt i64 %r2, 0
  %stopped2 = icmp ne i64 %s2, 0
  %stay = or i1 %some2, %stopped2
  br i1 %stay, label %awake, label %wait
wait:
SLEEP
awake:
  %gone = atomicrmw sub ptr %sleepers, i64 1 seq_cst
  br label %again
out:
  ret i64 -1
}}
"""

_FUTEX_SLEEP = """  %waited = call i64 @syscall(
    i64 FUTEX, ptr %seq, i64 128, i64 %now, i64 0, i64 0, i64 0)
  br label %awake"""
_PYTHON_SLEEP = "  ret i64 %now"

_FUTEX_WAKE = """
declare i64 @syscall(i64, ptr, i64, i64, i64, i64, i64)
define internal void @rouse(ptr %pool, i64 %count) {
  %woken = call i64 @syscall(i64 FUTEX, ptr %pool, i64 129, i64 %count, i64 0, i64 0, i64 0)
  ret void
}
"""
_PYTHON_WAKE = f"""
define internal void @rouse(ptr %pool, i64 %count) {{
{_pool("wake")}
  %f = load ptr, ptr %wake
  call void %f()
  ret void
}}
"""

_STOP = f"""
define void @stop(ptr %pool) {{
{_pool("seq stop")}
  store atomic i64 1, ptr %stop seq_cst, align 8
  %before = atomicrmw add ptr %seq, i64 1 seq_cst
  call void @rouse(ptr %pool, i64 2147483647)
  ret void
}}
"""

# Seconds of a pause differ a hundredfold between processors: the spin limit is calibrated.
_CALIBRATE = """
define void @calibrate(i64 %turns) {
entry:
  br label %top
top:
  %turn = phi i64 [ 0, %entry ], [ %next, %top ]
  call void @PAUSE
  %next = add i64 %turn, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %top, label %out
out:
  ret void
}
"""

_SHARE = f"""
define internal void @alone(ptr %f, ptr %a, i64 %n, i64 %from, ptr %own) {{
entry:
  %any = icmp sgt i64 %n, 0
  %end = add i64 %from, %n
  br i1 %any, label %top, label %out
top:
  %task = phi i64 [ %from, %entry ], [ %next, %top ]
  call void %f(ptr %a, i64 %task, ptr %own)
  %next = add i64 %task, 1
  %more = icmp slt i64 %next, %end
  br i1 %more, label %top, label %out
out:
  ret void
}}

define internal void @share(
    ptr %pool, ptr %f, ptr %a, i64 %n, i64 %from, ptr %base, i64 %step) {{
entry:
{_pool("seq remaining done function arguments total scratch stride first")}
{_pool("busy workers sleepers yield")}
  %w = load i64, ptr %workers
  %none = icmp eq i64 %w, 0
  %few = icmp sle i64 %n, 1
  %simple = or i1 %none, %few
  br i1 %simple, label %serial, label %try
try:
  %grab = cmpxchg ptr %busy, i64 0, i64 1 acq_rel monotonic
  %free = extractvalue {{ i64, i1 }} %grab, 1
  br i1 %free, label %publish, label %serial
serial:
  call void @alone(ptr %f, ptr %a, i64 %n, i64 %from, ptr %base)
  ret void
publish:
  store ptr %f, ptr %function
  store ptr %a, ptr %arguments
  store i64 %n, ptr %total
  store ptr %base, ptr %scratch
  store i64 %step, ptr %stride
  store i64 %from, ptr %first
  store atomic i64 0, ptr %done monotonic, align 8
  store atomic i64 %n, ptr %remaining seq_cst, align 8
  %before = atomicrmw add ptr %seq, i64 1 seq_cst
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %must = icmp sgt i64 %asleep, 0
  br i1 %must, label %call, label %mine
call:
  %helpers = sub i64 %n, 1
  call void @rouse(ptr %pool, i64 %helpers)
  br label %mine
mine:
  call void @drain(ptr %pool, i64 0)
  br label %join
join:
  %turn = phi i64 [ 0, %mine ], [ %next, %pause ], [ 0, %polite ]
  %d = load atomic i64, ptr %done acquire, align 8
  %finished = icmp sge i64 %d, %n
  br i1 %finished, label %out, label %pause_or_yield
pause_or_yield:
  %long = icmp sgt i64 %turn, 1000
  br i1 %long, label %yielding, label %pause
pause:
  call void @PAUSE
  %next = add i64 %turn, 1
  br label %join
yielding:
  %y = load ptr, ptr %yield
  %has = icmp ne ptr %y, null
  br i1 %has, label %give, label %polite
give:
  %given = call i32 %y()
  br label %polite
polite:
  br label %join
out:
  store atomic i64 0, ptr %busy release, align 8
  ret void
}}
"""

_RUN = f"""
declare ptr @memmove(ptr, ptr, i64)
declare i64 @CLOCK()

define i64 @clock() {{
  %now = call i64 @CLOCK()
  ret i64 %now
}}

define i64 @run(ptr %pool, ptr %call) {{
entry:
{_call("code pc slots args scratch stride ticks budget round")}
  %program = load ptr, ptr %code
  %start = load i64, ptr %pc
  %table = load ptr, ptr %slots
  %area = load ptr, ptr %args
  %base = load ptr, ptr %scratch
  %step = load i64, ptr %stride
  %clocks = load ptr, ptr %ticks
  %turns = load i64, ptr %budget
  %timed = icmp ne ptr %clocks, null
  br label %fetch
fetch:
  %at = phi i64 [ %start, %entry ], [ %after_launch, %launched ], [ %after_copy, %copy ],
    [ %target, %jump ], [ %chosen, %unless ], [ %again, %back_on ],
    [ %beyond, %turned ]
  %left = phi i64 [ %turns, %entry ], [ %left, %launched ], [ %left, %copy ],
    [ %left, %jump ], [ %left, %unless ], [ %rest, %back_on ],
    [ %left, %turned ]
  %word = getelementptr i64, ptr %program, i64 %at
  %w1 = getelementptr i64, ptr %word, i64 1
  %w2 = getelementptr i64, ptr %word, i64 2
  %w3 = getelementptr i64, ptr %word, i64 3
  %w4 = getelementptr i64, ptr %word, i64 4
  %w5 = getelementptr i64, ptr %word, i64 5
  %w6 = getelementptr i64, ptr %word, i64 6
  %op = load i64, ptr %word
  switch i64 %op, label %end [
    i64 {LAUNCH}, label %launch
    i64 {COPY}, label %copy
    i64 {JUMP}, label %jump
    i64 {UNLESS}, label %unless
    i64 {BACK}, label %back
    i64 {HOST}, label %host
    i64 {TURN}, label %turn
  ]
end:
  ret i64 -1
launch:
  %f = load ptr, ptr %w1
  %n = load i64, ptr %w2
  %rounds_ended = load i64, ptr %round
  %from_task = mul i64 %rounds_ended, %n
  %place = load i64, ptr %w3
  %tick = load i64, ptr %w4
  %count = load i64, ptr %w5
  %a = getelementptr ptr, ptr %area, i64 %place
  %size = add i64 %count, 6
  %after_launch = add i64 %at, %size
  %any = icmp sgt i64 %count, 0
  br i1 %any, label %bind, label %bound
bind:
  %i = phi i64 [ 0, %launch ], [ %i2, %bind ]
  %from = getelementptr i64, ptr %w6, i64 %i
  %slot = load i64, ptr %from
  %entry_of = getelementptr ptr, ptr %table, i64 %slot
  %address = load ptr, ptr %entry_of
  %to = getelementptr ptr, ptr %a, i64 %i
  store ptr %address, ptr %to
  %i2 = add i64 %i, 1
  %more = icmp slt i64 %i2, %count
  br i1 %more, label %bind, label %bound
bound:
  br i1 %timed, label %measured, label %plain
plain:
  call void @share(
    ptr %pool, ptr %f, ptr %a, i64 %n, i64 %from_task, ptr %base, i64 %step)
  br label %launched
measured:
  %t0 = call i64 @CLOCK()
  call void @share(
    ptr %pool, ptr %f, ptr %a, i64 %n, i64 %from_task, ptr %base, i64 %step)
  %t1 = call i64 @CLOCK()
  %took = sub i64 %t1, %t0
  %pair = mul i64 %tick, 2
  %counter = getelementptr i64, ptr %clocks, i64 %pair
  %times = load i64, ptr %counter
  %times2 = add i64 %times, 1
  store i64 %times2, ptr %counter
  %place_of_sum = getelementptr i64, ptr %counter, i64 1
  %sum = load i64, ptr %place_of_sum
  %sum2 = add i64 %sum, %took
  store i64 %sum2, ptr %place_of_sum
  br label %launched
launched:
  br label %fetch
copy:
  %source = load i64, ptr %w1
  %sink = load i64, ptr %w2
  %bytes = load i64, ptr %w3
  %ps = getelementptr ptr, ptr %table, i64 %source
  %pt = getelementptr ptr, ptr %table, i64 %sink
  %as = load ptr, ptr %ps
  %as2 = load ptr, ptr %pt
  %moved = call ptr @memmove(ptr %as2, ptr %as, i64 %bytes)
  %after_copy = add i64 %at, 4
  br label %fetch
jump:
  %target = load i64, ptr %w1
  br label %fetch
unless:
  %flag = load i64, ptr %w1
  %away = load i64, ptr %w2
  %pf = getelementptr ptr, ptr %table, i64 %flag
  %af = load ptr, ptr %pf
  %truth = load i8, ptr %af
  %holds = icmp ne i8 %truth, 0
  %straight = add i64 %at, 3
  %chosen = select i1 %holds, i64 %straight, i64 %away
  br label %fetch
turn:
  %rounds = load i64, ptr %w1
  %ended = load i64, ptr %round
  %number = add i64 %ended, 1
  %last = icmp sge i64 %number, %rounds
  br i1 %last, label %turned, label %once_more
turned:
  store i64 0, ptr %round
  %beyond = add i64 %at, 3
  br label %fetch
once_more:
  store i64 %number, ptr %round
  br label %going_back
back:
  br label %going_back
going_back:
  %where = phi ptr [ %w1, %back ], [ %w2, %once_more ]
  %again = load i64, ptr %where
  %rest = sub i64 %left, 1
  %spent = icmp sle i64 %rest, 0
  br i1 %spent, label %breathe, label %back_on
back_on:
  br label %fetch
host:
  %asked = sub i64 -2, %at
  ret i64 %asked
breathe:
  ret i64 %again
}}
"""

_PLAIN_PAUSE = """
define internal void @pause() {
  %now = call i64 @CLOCK()
  ret void
}
"""


def pool_text(machine: str, futex: bool) -> str:
    """The pool's LLVM text for a processor family; `futex` says how workers sleep."""
    family = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    worker = _WORKER.replace("SLEEP", _FUTEX_SLEEP if futex else _PYTHON_SLEEP)
    rouse = _FUTEX_WAKE if futex else _PYTHON_WAKE
    text = "".join((_DRAIN, worker, rouse, _STOP, _CALIBRATE, _SHARE, _RUN))
    declared, pause = _PAUSE.get(family, ("void @pause()", "pause()"))
    text += f"declare {declared}\n" if family in _PAUSE else _PLAIN_PAUSE
    text = text.replace("PAUSE", pause)
    text = text.replace("CLOCK", _CLOCK.get(family, "llvm.readsteadycounter"))
    return text.replace("FUTEX", str(FUTEX_CALL.get(family, 0)))
