"""The machine code between XLA and a compiled program, as LLVM text: no C++ build, no Python.

    invoke(frame, plan)   what XLA calls for a custom call: binds buffers, runs the program's words
    handler(frame)        one for each program: invoke with the program's own plan

`frame` is XLA's typed FFI call frame (xla/ffi/api/c_api.h, major version 0, whose layouts are
stable); `FRAME`, `BUFFER`, … below are its fields' byte offsets. `plan` is a block of words that
`xla.py` fills (`PLAN`).

A run needs a workspace: the call's own words (`pool_code.CALL`), its slots, the words of launch
arguments, then what the program asks for. The last one that was used waits in the word `idle`,
its bytes in its first word, for whoever comes next; a larger one takes its place. So programs share
one, and runs at the same time each have their own.
"""

from __future__ import annotations

from typing import Final

from summand.runtime.pool_code import CALL, CALL_WORDS

FRAME: Final = {
    "extension": 8,
    "api": 16,
    "stage": 32,
    "arg_count": 56,
    "args": 72,
    "ret_count": 96,
    "rets": 112,
}
BUFFER_DATA: Final = 24
EXTENSION: Final = {"type": 8, "next": 16, "metadata": 24}
METADATA: Final = {"major": 24, "minor": 28, "traits": 32}
MAJOR: Final = 0  # the version of the FFI whose fields these are
API_ERROR_CREATE: Final = 48
EXECUTE: Final = 3
OUT_OF_RANGE, RESOURCE_EXHAUSTED, INVALID = 11, 8, 3  # XLA_FFI_Error_Code

HEAD: Final = 8 * (CALL_WORDS + 8)  # bytes of a workspace before the slots: its size, call words
WORDS: Final = 8 * 8  # where the call's words begin

# word of the plan -> its place
PLAN: Final = {
    name: place
    for place, name in enumerate(
        (
            "run",  # the pool's `run`
            "pool",
            "code",
            "slot_count",
            "slots",  # template: addresses of constants, offsets of regions in the workspace
            "region_count",
            "regions",  # slots to which the workspace's address is added
            "param_count",
            "params",  # their slots
            "result_count",
            "results",
            "args",  # offset of the launch arguments in the workspace
            "scratch",  # offset
            "stride",
            "bytes",  # of the workspace
            "idle",  # where the waiting workspace's address is
            "check_count",
            "checks",  # four words each: slot, elements, bound, message for printf
        )
    )
}
CHECK_WORDS: Final = 4
MESSAGE_BYTES: Final = 2048
NO_MEMORY: Final = b"Summand: no memory for the temporaries of a program\0"
MISFIT: Final = b"Summand: a program was called with another number of buffers\0"


def _fields(base: str, names: str) -> str:
    """Loads of plan words, each under its name."""
    return "\n".join(
        f"  %p.{n} = getelementptr i64, ptr %{base}, i64 {PLAN[n]}\n"
        f"  %{n} = load {'ptr' if n in _POINTERS else 'i64'}, ptr %p.{n}"
        for n in names.split()
    )


_POINTERS = {"run", "pool", "code", "slots", "regions", "params", "results", "idle", "checks"}


def _load(name: str, offset: int, kind: str = "ptr", base: str = "frame") -> str:
    return (
        f"  %at.{name} = getelementptr i8, ptr %{base}, i64 {offset}\n"
        f"  %{name} = load {kind}, ptr %at.{name}"
    )


def _loop(label: str, count: str, body: str, after: str, before: str) -> str:
    """for %label.i in range(count): body; the block `after` follows."""
    return f"""
{label}.test:
  %{label}.i = phi i64 [ 0, %{before} ], [ %{label}.next, %{label}.body ]
  %{label}.more = icmp slt i64 %{label}.i, {count}
  br i1 %{label}.more, label %{label}.body, label %{after}
{label}.body:
{body}
  %{label}.next = add i64 %{label}.i, 1
  br label %{label}.test
"""


def _bind(label: str, table: str, array: str) -> str:
    """slots[table[i]] = buffers[i]->data"""
    return f"""
  %{label}.b = getelementptr ptr, ptr %{array}, i64 %{label}.i
  %{label}.buffer = load ptr, ptr %{label}.b
  %{label}.d = getelementptr i8, ptr %{label}.buffer, i64 {BUFFER_DATA}
  %{label}.data = load ptr, ptr %{label}.d
  %{label}.s = getelementptr i64, ptr %{table}, i64 %{label}.i
  %{label}.slot = load i64, ptr %{label}.s
  %{label}.to = getelementptr ptr, ptr %own, i64 %{label}.slot
  store ptr %{label}.data, ptr %{label}.to"""


def _string(name: str, data: bytes) -> str:
    text = "".join(f"\\{b:02X}" for b in data)
    return f'@{name} = private constant [{len(data)} x i8] c"{text}"\n'


def _call_field(name: str, value: str, kind: str) -> str:
    offset = WORDS + 8 * CALL[name]
    return (
        f"  %c.{name} = getelementptr i8, ptr %space, i64 {offset}\n"
        f"  store {kind} {value}, ptr %c.{name}"
    )


# Answers the question which version of the FFI this was written for. VERSION is that of the header
# that comes with XLA, as a C++ build has it: the fields above are the same in all minor versions.
_DESCRIBE = f"""
define internal void @describe(ptr %first) {{
entry:
  br label %look
look:
  %extension = phi ptr [ %first, %entry ], [ %next, %on ]
  %none = icmp eq ptr %extension, null
  br i1 %none, label %out, label %some
some:
{_load("type", EXTENSION["type"], "i32", "extension")}
  %wanted = icmp eq i32 %type, 1
  br i1 %wanted, label %answer, label %on
answer:
{_load("metadata", EXTENSION["metadata"], "ptr", "extension")}
  %major.at = getelementptr i8, ptr %metadata, i64 {METADATA["major"]}
  store i32 {MAJOR}, ptr %major.at
  %minor.at = getelementptr i8, ptr %metadata, i64 {METADATA["minor"]}
  store i32 VERSION, ptr %minor.at
  %traits.at = getelementptr i8, ptr %metadata, i64 {METADATA["traits"]}
  store i32 0, ptr %traits.at
  br label %on
on:
{_load("next", EXTENSION["next"], "ptr", "extension")}
  br label %look
out:
  ret void
}}
"""

_FAIL = f"""
define internal ptr @fail(ptr %frame, ptr %message, i32 %code) {{
{_load("api", FRAME["api"])}
{_load("create", API_ERROR_CREATE, "ptr", "api")}
  %error = alloca {{ i64, ptr, ptr, i32 }}
  store {{ i64, ptr, ptr, i32 }} {{ i64 28, ptr null, ptr null, i32 0 }}, ptr %error
  %text = getelementptr i8, ptr %error, i64 16
  store ptr %message, ptr %text
  %kind = getelementptr i8, ptr %error, i64 24
  store i32 %code, ptr %kind
  %made = call ptr %create(ptr %error)
  ret ptr %made
}}
"""

_SPACE = """
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)

define internal ptr @take(ptr %idle, i64 %bytes) {
entry:
  %waiting = atomicrmw xchg ptr %idle, i64 0 acq_rel
  %none = icmp eq i64 %waiting, 0
  br i1 %none, label %fresh, label %look
look:
  %space = inttoptr i64 %waiting to ptr
  %has = load i64, ptr %space
  %enough = icmp uge i64 %has, %bytes
  br i1 %enough, label %out, label %small
small:
  call void @free(ptr %space)
  br label %fresh
fresh:
  %large = icmp uge i64 %bytes, 2097152
  %align = select i1 %large, i64 2097152, i64 4096
  %less = sub i64 %align, 1
  %up = add i64 %bytes, %less
  %mask = xor i64 %less, -1
  %size = and i64 %up, %mask
  %new = call ptr @aligned_alloc(i64 %align, i64 %size)
  %failed = icmp eq ptr %new, null
  br i1 %failed, label %out, label %mark
mark:
  store i64 %size, ptr %new
  br i1 %large, label %huge, label %out
huge:
ADVISE
  br label %out
out:
  %found = phi ptr [ %space, %look ], [ null, %fresh ], [ %new, %mark ], [ %new, %huge ]
  ret ptr %found
}

define internal void @give(ptr %idle, ptr %space) {
entry:
  br label %again
again:
  %mine = phi ptr [ %space, %entry ], [ %other, %swap ]
  %number = ptrtoint ptr %mine to i64
  %put = cmpxchg ptr %idle, i64 0, i64 %number acq_rel monotonic
  %done = extractvalue { i64, i1 } %put, 1
  br i1 %done, label %out, label %taken
taken:
  %waiting = atomicrmw xchg ptr %idle, i64 0 acq_rel
  %gone = icmp eq i64 %waiting, 0
  br i1 %gone, label %swap, label %both
both:
  %theirs = inttoptr i64 %waiting to ptr
  %a = load i64, ptr %mine
  %b = load i64, ptr %theirs
  %larger = icmp uge i64 %a, %b
  %keep = select i1 %larger, ptr %mine, ptr %theirs
  %drop = select i1 %larger, ptr %theirs, ptr %mine
  call void @free(ptr %drop)
  br label %swap
swap:
  %other = phi ptr [ %mine, %taken ], [ %keep, %both ]
  br label %again
out:
  ret void
}
"""

_ADVISE = """  %advised = call i32 @madvise(ptr %new, i64 %size, i32 14)"""  # MADV_HUGEPAGE

_CHECK = f"""
declare i32 @snprintf(ptr, i64, ptr, ...)

define internal ptr @check(ptr %frame, ptr %own, ptr %checks, i64 %count) {{
entry:
  %text = alloca [{MESSAGE_BYTES} x i8]
  br label %each.test
each.test:
  %n = phi i64 [ 0, %entry ], [ %n.next, %each.done ]
  %more = icmp slt i64 %n, %count
  br i1 %more, label %each, label %fine
each:
  %first = mul i64 %n, {CHECK_WORDS}
  %row = getelementptr i64, ptr %checks, i64 %first
  %slot = load i64, ptr %row
  %row1 = getelementptr i64, ptr %row, i64 1
  %elements = load i64, ptr %row1
  %row2 = getelementptr i64, ptr %row, i64 2
  %bound = load i64, ptr %row2
  %row3 = getelementptr i64, ptr %row, i64 3
  %format = load ptr, ptr %row3
  %at = getelementptr ptr, ptr %own, i64 %slot
  %data = load ptr, ptr %at
  br label %item.test
item.test:
  %i = phi i64 [ 0, %each ], [ %i.next, %item.fine ]
  %left = icmp slt i64 %i, %elements
  br i1 %left, label %item, label %each.done
item:
  %from = getelementptr i64, ptr %data, i64 %i
  %value = load i64, ptr %from
  %inside = icmp ult i64 %value, %bound
  br i1 %inside, label %item.fine, label %bad
item.fine:
  %i.next = add i64 %i, 1
  br label %item.test
each.done:
  %n.next = add i64 %n, 1
  br label %each.test
bad:
  %length = call i32 (ptr, i64, ptr, ...) @snprintf(
    ptr %text, i64 {MESSAGE_BYTES}, ptr %format, i64 %value)
  %error = call ptr @fail(ptr %frame, ptr %text, i32 {OUT_OF_RANGE})
  ret ptr %error
fine:
  ret ptr null
}}
"""

_INVOKE = f"""
define ptr @invoke(ptr %frame, ptr %plan) {{
entry:
{_load("extension", FRAME["extension"])}
{_load("stage", FRAME["stage"], "i32")}
  %plain = icmp eq ptr %extension, null
  br i1 %plain, label %staged, label %asked
asked:
  call void @describe(ptr %extension)
  ret ptr null
staged:
  %running = icmp eq i32 %stage, {EXECUTE}
  br i1 %running, label %counted, label %idly
idly:
  ret ptr null
counted:
{_fields("plan", "param_count result_count bytes idle")}
{_load("arg_count", FRAME["arg_count"], "i64")}
{_load("ret_count", FRAME["ret_count"], "i64")}
  %as_many = icmp eq i64 %arg_count, %param_count
  %as_many2 = icmp eq i64 %ret_count, %result_count
  %fits = and i1 %as_many, %as_many2
  br i1 %fits, label %begin, label %misfit
misfit:
  %e1 = call ptr @fail(ptr %frame, ptr @misfit_text, i32 {INVALID})
  ret ptr %e1
begin:
  %space = call ptr @take(ptr %idle, i64 %bytes)
  %missing = icmp eq ptr %space, null
  br i1 %missing, label %full, label %fill
full:
  %e2 = call ptr @fail(ptr %frame, ptr @no_memory_text, i32 {RESOURCE_EXHAUSTED})
  ret ptr %e2
fill:
{_fields("plan", "run pool code slot_count slots region_count regions params results")}
{_fields("plan", "args scratch stride check_count checks")}
{_load("arg_buffers", FRAME["args"])}
{_load("ret_buffers", FRAME["rets"])}
  %own = getelementptr i8, ptr %space, i64 {HEAD}
  %slot_bytes = mul i64 %slot_count, 8
  call void @llvm.memcpy.p0.p0.i64(ptr %own, ptr %slots, i64 %slot_bytes, i1 false)
  %base = ptrtoint ptr %space to i64
  br label %region.test
{
    _loop(
        "region",
        "%region_count",
        '''  %region.r = getelementptr i64, ptr %regions, i64 %region.i
  %region.slot = load i64, ptr %region.r
  %region.at = getelementptr i64, ptr %own, i64 %region.slot
  %region.offset = load i64, ptr %region.at
  %region.address = add i64 %region.offset, %base
  store i64 %region.address, ptr %region.at''',
        "params.start",
        "fill",
    )
}
params.start:
  br label %param.test
{
    _loop(
        "param",
        "%param_count",
        _bind("param", "params", "arg_buffers"),
        "rets.start",
        "params.start",
    )
}
rets.start:
  br label %ret.test
{_loop("ret", "%result_count", _bind("ret", "results", "ret_buffers"), "go", "rets.start")}
go:
  %call = getelementptr i8, ptr %space, i64 {WORDS}
  %launch_args = getelementptr i8, ptr %space, i64 %args
  %own_scratch = getelementptr i8, ptr %space, i64 %scratch
{_call_field("code", "%code", "ptr")}
{_call_field("pc", "0", "i64")}
{_call_field("slots", "%own", "ptr")}
{_call_field("args", "%launch_args", "ptr")}
{_call_field("scratch", "%own_scratch", "ptr")}
{_call_field("stride", "%stride", "i64")}
{_call_field("ticks", "null", "ptr")}
{_call_field("budget", str(1 << 62), "i64")}
{_call_field("round", "0", "i64")}
  %ended = call i64 %run(ptr %pool, ptr %call)
  %error = call ptr @check(ptr %frame, ptr %own, ptr %checks, i64 %check_count)
  call void @give(ptr %idle, ptr %space)
  ret ptr %error
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""


def invoke_text(linux: bool, minor: int) -> str:
    """The text of `invoke`. `linux` says whether the system takes advice on huge pages, `minor` is
    XLA's minor version of the FFI."""
    space = _SPACE.replace("ADVISE", _ADVISE if linux else "")
    declared = "declare i32 @madvise(ptr, i64, i32)\n" if linux else ""
    texts = _string("no_memory_text", NO_MEMORY) + _string("misfit_text", MISFIT)
    describe = _DESCRIBE.replace("VERSION", str(minor))
    return "".join((texts, declared, describe, _FAIL, space, _CHECK, _INVOKE))


def handler_text(invoke: int, plan: int) -> str:
    """The function that XLA calls for one program, given two addresses."""
    return f"""
define ptr @handler(ptr %frame) {{
  %invoke = inttoptr i64 {invoke} to ptr
  %plan = inttoptr i64 {plan} to ptr
  %error = tail call ptr %invoke(ptr %frame, ptr %plan)
  ret ptr %error
}}
"""
