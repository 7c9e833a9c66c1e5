"""Values as plain JSON data across the sandbox's pipes: `encode` on one side, `decode` on the other, never pickles.

The confined process imports this file outside the package, so it may import the standard library alone.
"""

import builtins

__builtins__ = dict(vars(builtins))  # the functions below keep these when a solution patches `builtins`

MAX_NODES = 200_000


class Opaque:
    """Stands for an object that is no plain data; it equals nothing but itself."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def encode(value: object) -> object:
    """`value` as JSON types: exact builtins only, the rest tagged {"t": kind, "v": payload}.

    RecursionError on nesting too deep (or a list that holds itself), ValueError on a cyclic linked list or tree.
    """
    kind = type(value)  # not isinstance: __class__ can lie
    if value is None or kind in (bool, float, str):
        return value
    if issubclass(kind, int):
        plain = int.__add__(value, 0)
        return plain if -(1 << 63) < plain < 1 << 63 else {"t": "int", "v": hex(plain)}
    if issubclass(kind, float):
        return float.__add__(value, 0.0)
    if issubclass(kind, str):
        return str.__add__(value, "")
    if issubclass(kind, list):
        return [encode(item) for item in list.__iter__(value)]
    if issubclass(kind, tuple):
        return {"t": "tuple", "v": [encode(item) for item in tuple.__iter__(value)]}
    if issubclass(kind, dict):
        return {"t": "dict", "v": [[encode(key), encode(item)] for key, item in dict.items(value)]}
    if issubclass(kind, set):
        return {"t": "set", "v": [encode(item) for item in set.__iter__(value)]}
    if issubclass(kind, frozenset):
        return {"t": "frozenset", "v": [encode(item) for item in frozenset.__iter__(value)]}
    if issubclass(kind, (bytes, bytearray)):
        return {"t": "bytes", "v": bytes(value).hex()}
    if kind.__module__ == "numpy":
        return encode(value.tolist())
    if kind.__name__ == "ListNode":
        return {"t": "ListNode", "v": _encode_list(value)}
    if kind.__name__ == "TreeNode":
        return {"t": "TreeNode", "v": _encode_tree(value)}
    return {"t": "object", "v": kind.__name__}


def _encode_list(node: object) -> list:
    values = []
    while node is not None:
        values.append(encode(node.val))
        if len(values) > MAX_NODES:
            raise ValueError("the linked list does not end")
        node = node.next
    return values


def _encode_tree(root: object) -> list:
    """Level order; a node is [value], a missing child null."""
    row, queue = [], [root]
    for node in queue:
        if node is None:
            row.append(None)
            continue
        row.append([encode(node.val)])
        queue += (node.left, node.right)
        if len(row) > MAX_NODES:
            raise ValueError("the tree does not end")
    return row


def decode(wire: object, space: dict) -> object:
    """The value that `encode` wrote; node classes are taken from `space`. ValueError on an unknown tag."""
    if type(wire) is list:
        return [decode(item, space) for item in wire]
    if type(wire) is not dict:
        return wire
    kind, payload = wire.get("t"), wire.get("v")
    if kind == "int":
        return int(payload, 16)
    if kind == "tuple":
        return tuple(decode(item, space) for item in payload)
    if kind == "dict":
        return {decode(key, space): decode(item, space) for key, item in payload}
    if kind in ("set", "frozenset"):
        return (set if kind == "set" else frozenset)(decode(item, space) for item in payload)
    if kind == "bytes":
        return bytes.fromhex(payload)
    if kind == "ListNode":
        head = None
        for item in reversed(payload):
            node = space["ListNode"](decode(item, space))
            node.next, head = head, node
        return head
    if kind == "TreeNode":
        return _decode_tree(payload, space)
    if kind == "object":
        return Opaque(payload)
    raise ValueError("malformed value")


def _decode_tree(row: list, space: dict) -> object:
    nodes = [None if item is None else space["TreeNode"](decode(item[0], space)) for item in row]
    children = iter(nodes[1:])
    for node in nodes:
        if node is not None:
            node.left, node.right = next(children, None), next(children, None)
    return nodes[0]
