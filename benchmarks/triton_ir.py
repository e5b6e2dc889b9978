"""What a compiled Triton kernel loads and stores, read off its intermediate code.

Pointer arithmetic, masks and loops of a kernel's TTIR (the code before it is laid out on threads) are run in NumPy
with the arguments of a launch, program by program, with integers as wide as the code has them, so that overflow
shows. Numbers that do not steer an address are not computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTHS = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}
INTEGERS = {"i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "slt": np.less,
    "sle": np.less_equal,
    "sgt": np.greater,
    "sge": np.greater_equal,
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "arith.addi": np.add,
    "arith.subi": np.subtract,
    "arith.muli": np.multiply,
    "arith.minsi": np.minimum,
    "arith.maxsi": np.maximum,
    "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or,
    "arith.xori": np.bitwise_xor,
    "arith.divsi": lambda a, b: (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(np.asarray(a).dtype),
    "arith.remsi": lambda a, b: (np.sign(a) * (np.abs(a) % np.abs(b))).astype(np.asarray(a).dtype),
}


@dataclass(frozen=True)
class Pointer:
    """Where into which argument, in elements."""

    argument: str
    offset: Any


@dataclass(frozen=True)
class Access:
    """One execution of a load or store by one program: the elements it touches."""

    argument: str
    store: bool
    width: int
    elements: NDArray[np.int64]


@dataclass
class Operation:
    """One operation of the code and the operations in its regions."""

    results: list[str]
    name: str
    text: str
    regions: list[list[Operation]] = field(default_factory=list)


class Code:
    """The TTIR of a kernel, parsed."""

    def __init__(self, ttir: str) -> None:
        lines = [re.sub(r"\s*loc\(.*\)$", "", line).strip() for line in ttir.splitlines()]
        lines = [line for line in lines if line and not line.startswith(("#", "module"))]
        start = next(i for i, line in enumerate(lines) if line.startswith("tt.func public"))
        self.parameters = re.findall(r"%(\w+): (?:!tt\.ptr<)?(\w+)", lines[start])
        self.body, _ = _block(lines, start + 1)

    def stored_bytes(self, threads: int) -> int:
        """Bytes of one execution of every store in the code, nothing masked out.

        A tile with fewer numbers than ``threads`` has copies of them in the others, which are counted too.
        """
        return sum(_stored(operation, threads) for operation in self.body)

    def accesses(self, arguments: Mapping[str, Any], program: int) -> Iterator[Access]:
        """What one program loads and stores. ``arguments``: integers, or arrays where loaded integers steer addresses.

        Those that the code takes and ``arguments`` lacks are pointers whose contents do not matter.
        """
        values: dict[str, Any] = {}
        memory: dict[str, Any] = {}
        for name, kind in self.parameters:
            given = arguments.get(name)
            if isinstance(given, int):
                values[f"%{name}"] = INTEGERS[kind](given)
            elif not isinstance(given, float):
                values[f"%{name}"], memory[name] = Pointer(name, np.int64(0)), given
        with np.errstate(over="ignore"):
            yield from _run(self.body, values, memory, program)


def _block(lines: list[str], start: int) -> tuple[list[Operation], int]:
    """The operations from line ``start`` to the end of the region, and the line that ends it."""
    operations: list[Operation] = []
    position = start
    while not lines[position].startswith("}"):
        line = lines[position]
        position += 1
        if line.startswith("^"):
            continue
        match = re.match(r"(?:(%[\w:, %]+?) = )?\"?([\w.]+)\"?(.*)$", line)
        assert match, line
        results = [_plain(name) for name in (match[1] or "").split(",") if name]
        operation = Operation(results, match[2], match[3])
        while line.endswith("{"):
            region, position = _block(lines, position)
            operation.regions.append(region)
            line = lines[position]
            position += 1
        operations.append(operation)
    return operations, position


def _plain(name: str) -> str:
    """``%x:2`` as ``%x``."""
    return name.strip().split(":")[0]


def _run(body: list[Operation], values: dict[str, Any], memory: dict[str, Any], program: int) -> Iterator[Access]:
    """Run operations, writing their results into ``values``."""
    for operation in body:
        names = re.findall(r"%[\w#]+", operation.text)
        inputs = [values.get(name) for name in names]
        if operation.name in ("tt.load", "tt.store"):
            yield from _access(operation, inputs, values, memory)
        elif operation.name == "scf.for":
            yield from _loop(operation, values, memory, program)
        elif operation.name == "scf.if" and inputs[0] is not None:
            region = operation.regions[0 if inputs[0] else 1] if inputs[0] or len(operation.regions) > 1 else []
            yield from _run(region, values, memory, program)
            _bind(operation.results, _yielded(region, values), values)
        elif operation.name in ("scf.if", "scf.while"):
            _without_access(operation)
        elif operation.results:
            values[operation.results[0]] = _value(operation, inputs, program)


def _stored(operation: Operation, threads: int) -> int:
    """Bytes of the stores of an operation and those within it."""
    if operation.name != "tt.store":
        return sum(_stored(inner, threads) for region in operation.regions for inner in region)
    shape, kind = re.findall(r"tensor<((?:\d+x)*)!tt\.ptr<(\w+)>", operation.text)[-1]
    return WIDTHS[kind] * max(threads, int(np.prod([int(side) for side in shape.split("x") if side], dtype=np.int64)))


def _access(
    operation: Operation, inputs: list[Any], values: dict[str, Any], memory: dict[str, Any]
) -> Iterator[Access]:
    """A load or store, and the loaded integers."""
    store = operation.name == "tt.store"
    kind = re.findall(r"ptr<(\w+)>", operation.text)[-1]
    pointer = inputs[0]
    mask_at = 2 if store else 1
    mask = inputs[mask_at] if len(inputs) > mask_at else True
    if pointer is None or mask is None:
        raise ValueError(f"an address or mask is not known: {operation.name}{operation.text}")
    offset, chosen = np.broadcast_arrays(pointer.offset, mask)
    yield Access(pointer.argument, store, WIDTHS[kind], offset[chosen].astype(np.int64))
    known = memory.get(pointer.argument)
    if not store and known is not None and kind in INTEGERS:
        values[operation.results[0]] = known[np.where(chosen, offset, 0)].astype(INTEGERS[kind])


def _loop(operation: Operation, values: dict[str, Any], memory: dict[str, Any], program: int) -> Iterator[Access]:
    """A counted loop."""
    match = re.match(r" (%\w+) = (%\w+) to (%\w+) step (%\w+)(?: iter_args\((.*?)\) ->)?", operation.text)
    assert match, operation.text
    low, high, step = (values[match[i]] for i in (2, 3, 4))
    carried = [tuple(pair.split(" = ")) for pair in (match[5] or "").split(", ") if pair]
    state = [values.get(initial) for _, initial in carried]
    for index in range(int(low), int(high), int(step)):
        values[match[1]] = np.asarray(low).dtype.type(index)
        values.update(zip((name for name, _ in carried), state, strict=True))
        yield from _run(operation.regions[0], values, memory, program)
        state = _yielded(operation.regions[0], values)
    _bind(operation.results, state, values)


def _yielded(region: list[Operation], values: dict[str, Any]) -> list[Any]:
    """What a region hands back."""
    if not region or region[-1].name != "scf.yield":
        return []
    return [values.get(name) for name in re.findall(r"%[\w#]+", region[-1].text)]


def _bind(results: list[str], state: list[Any], values: dict[str, Any]) -> None:
    """Name the results of a loop or branch."""
    if not results:
        return
    values[results[0]] = state[0]
    values.update({f"{results[0]}#{i}": value for i, value in enumerate(state)})


def _without_access(operation: Operation) -> None:
    """Refuse to pass over loads and stores whose number depends on data."""
    for region in operation.regions:
        for inner in region:
            if inner.name in ("tt.load", "tt.store"):
                raise ValueError(f"{inner.name} depends on data: {inner.text}")
            _without_access(inner)


def _value(operation: Operation, inputs: list[Any], program: int) -> Any:
    """The result of an operation on integers and pointers; ``None`` for one on other numbers."""
    name, text = operation.name, operation.text
    if name == "tt.get_program_id":
        return np.int32(program)
    if name == "arith.constant":
        return _constant(text)
    if name == "tt.make_range":
        start, end = (int(re.findall(rf"{word} = (\d+)", text)[0]) for word in ("start", "end"))
        return np.arange(start, end, dtype=np.int32)
    if not inputs or any(value is None for value in inputs):
        return None
    first = inputs[0]
    if name == "tt.addptr":
        return Pointer(first.argument, first.offset + np.asarray(inputs[1]).astype(np.int64))
    if isinstance(first, Pointer):
        return Pointer(first.argument, _shaped(name, text, first.offset))
    if name in BINARY:
        return BINARY[name](first, inputs[1])
    if name == "arith.cmpi":
        return COMPARISONS[re.findall(r"\w+", text)[0]](first, inputs[1])
    if name == "arith.select":
        return np.where(first, inputs[1], inputs[2])
    if name in ("arith.extsi", "arith.trunci", "arith.extui", "arith.index_cast"):
        kind = re.findall(r"\b(i\d+)\b", text.replace("x", " "))[-1]
        return np.asarray(first).astype(INTEGERS[kind])[()]
    return _shaped(name, text, first)


def _constant(text: str) -> Any:
    """An integer constant, or ``None``."""
    match = re.match(r"(?: \{.*\})? (?:dense<)?(-?\d+|true|false)>? ?:? ?(?:tensor<([\dx]*)x)?(i\d+)?", text)
    if not match or (match[3] is None and match[1] not in ("true", "false")):
        return None
    number = {"true": 1, "false": 0}.get(match[1]) if match[1] in ("true", "false") else int(match[1])
    scalar = INTEGERS[match[3] or "i1"](number)
    return np.full([int(side) for side in match[2].split("x")], scalar) if match[2] else scalar


def _shaped(name: str, text: str, value: Any) -> Any:
    """Operations that only change the shape; ``None`` for any other."""
    sides = re.findall(r"tensor<((?:\d+x)+)", text)
    shape = [int(side) for side in sides[-1].split("x") if side] if sides else []
    if name in ("tt.splat", "tt.broadcast"):
        return np.broadcast_to(value, shape)
    if name in ("tt.expand_dims", "tt.reshape"):
        return np.reshape(value, shape)
    if name == "tt.trans":
        order = [int(axis) for axis in re.findall(r"array<i32: ([\d, ]+)>", text)[0].split(",")]
        return np.transpose(value, order)
    return None
