"""A transparency log: the append-only Merkle tree of a checksum database, and proofs about it.

Source: golang.org/x/mod/sumdb/tlog, which follows RFC 6962 (section 2.1). Hashes are 32 raw bytes.
A tree of n records is known by its size and root hash; a tree head is a signed note of both. The
hash of every complete subtree has an index in one dense sequence (stored_hash_index), by which hash
readers are asked. tiles.py reads hashes from a server without trusting it.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

HASH_SIZE = 32
EMPTY_TREE_HASH = hashlib.sha256().digest()

_TREE_FORM = re.compile(r"go\.sum database tree\n(0|[1-9][0-9]{0,18})\n([^\n]*)\n")
_MAX_TREE_BYTES = 1_000_000
_MAX_INT64 = (1 << 63) - 1
_CONTROL = re.compile("[\0-\x09\x0b-\x1f]")

HashReader = Callable[[Sequence[int]], list[bytes]]
"""Returns the hashes at the given stored indexes, in their order; raises when it cannot."""


class ProofError(ValueError):
    """A proof does not prove what it is given for."""


class MalformedError(ValueError):
    """Text of a tree head or a record is not of its form."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree of the first ``size`` records, with its root hash."""

    size: int
    hash: bytes


EMPTY_TREE = Tree(0, EMPTY_TREE_HASH)


def record_hash(data: bytes) -> bytes:
    """Return the hash of a record (a leaf)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def stored_hash_index(level: int, n: int) -> int:
    """Return the index of the hash of the ``n``-th complete subtree of 2**level records."""
    n = ((n + 1) << level) - 1
    index = level
    while n:
        index += n
        n >>= 1
    return index


def split_stored_hash_index(index: int) -> tuple[int, int]:
    """Return the level and n that stored_hash_index gave ``index`` for."""
    # stored_hash_index(0, n) < 2n, so n lies between index/2 and index/2 + log2(index).
    n = index // 2
    at = stored_hash_index(0, n)
    while True:
        # Record n adds its own hash and one for each subtree it completes.
        following = at + 1 + _trailing_zeros(n + 1)
        if following > index:
            break
        n, at = n + 1, following
    level = index - at
    return level, n >> level


def tree_hash(size: int, reader: HashReader) -> bytes:
    """Return the root hash of the tree of the first ``size`` records."""
    return _range_hash(reader(subtree_indexes(0, size))) if size else EMPTY_TREE_HASH


def subtree_indexes(start: int, end: int) -> list[int]:
    """Return the indexes of the complete subtrees that records [start, end) consist of."""
    indexes = []
    while start < end:
        level = (end - start).bit_length() - 1
        indexes.append(stored_hash_index(level, start >> level))
        start += 1 << level
    return indexes


def prove_record(size: int, n: int, reader: HashReader) -> list[bytes]:
    """Return the proof that the tree of ``size`` records contains record ``n`` (ProveRecord)."""
    _check_range(0 <= n < size, f"record {n} in a tree of {size}")
    return _read_ranges([(low, high) for low, high, _ in _record_path(size, n)], reader)


def check_record(proof: Sequence[bytes], tree: Tree, n: int, leaf: bytes) -> None:
    """Raise ProofError unless ``proof`` shows that record ``n`` of ``tree`` has hash ``leaf``."""
    _check_range(0 <= n < tree.size, f"record {n} in a tree of {tree.size}")
    path = _record_path(tree.size, n)
    if len(proof) != len(path):
        raise ProofError(f"invalid record proof: {len(proof)} hashes, {len(path)} needed")
    root = leaf
    for (_, _, on_right), sibling in zip(path, proof, strict=True):
        root = node_hash(root, sibling) if on_right else node_hash(sibling, root)
    if root != tree.hash:
        raise ProofError(f"invalid proof of record {n} in a tree of {tree.size}")


def prove_tree(size: int, old_size: int, reader: HashReader) -> list[bytes]:
    """Return the proof that the tree of ``size`` starts with that of ``old_size`` (ProveTree)."""
    _check_range(0 < old_size <= size, f"a tree of {old_size} in a tree of {size}")
    common, path = _tree_path(size, old_size)
    ranges = [(low, high) for low, high, _ in path]
    return _read_ranges(([(common, old_size)] if common else []) + ranges, reader)


def check_tree(proof: Sequence[bytes], tree: Tree, old: Tree) -> None:
    """Raise ProofError unless ``proof`` shows that ``tree`` starts with all records of ``old``."""
    _check_range(0 < old.size <= tree.size, f"a tree of {old.size} in a tree of {tree.size}")
    common, path = _tree_path(tree.size, old.size)
    hashes = list(proof)
    if len(hashes) != len(path) + bool(common):
        raise ProofError(f"invalid tree proof: {len(hashes)} hashes, not as many as needed")
    before = after = hashes.pop(0) if common else old.hash
    for (_, _, on_right), sibling in zip(path, hashes, strict=True):
        if on_right:
            after = node_hash(after, sibling)
        else:
            before, after = node_hash(sibling, before), node_hash(sibling, after)
    if (before, after) != (old.hash, tree.hash):
        raise ProofError(f"invalid proof of a tree of {old.size} in a tree of {tree.size}")


def parse_tree(text: str) -> Tree:
    """Return the tree that the text of a tree head describes; later lines are ignored.

    Source: tlog.ParseTree. Raises MalformedError.
    """
    match = _TREE_FORM.match(text)
    if match is None or len(text) > _MAX_TREE_BYTES or int(match[1]) > _MAX_INT64:
        raise MalformedError("malformed tree head")
    try:
        root = base64.b64decode(match[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("malformed tree head: hash is not base64") from error
    if len(root) != HASH_SIZE:
        raise MalformedError("malformed tree head: hash of another size")
    return Tree(int(match[1]), root)


def parse_record(message: bytes) -> tuple[int, bytes, bytes]:
    """Return id, text and rest of a message that starts with a record.

    The form is the id in decimal, a newline, the text (lines, none of them empty), an empty line.
    Source: tlog.ParseRecord. Raises MalformedError.
    """
    first, _, body = message.partition(b"\n")
    text, blank, rest = body.partition(b"\n\n")
    number = first.decode("ascii", "replace")
    if not blank or not re.fullmatch("[0-9]{1,19}", number) or int(number) > _MAX_INT64:
        raise MalformedError("malformed record")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("malformed record: invalid UTF-8") from error
    if not text or text.startswith(b"\n") or _CONTROL.search(decoded):
        raise MalformedError("malformed record: empty, or with control characters")
    return int(number), text + b"\n", rest


def _trailing_zeros(n: int) -> int:
    return (n & -n).bit_length() - 1


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size``, the size of the left subtree."""
    return 1 << ((size - 1).bit_length() - 1)


def _record_path(size: int, n: int) -> list[tuple[int, int, bool]]:
    """Return the siblings on the way from leaf ``n`` to the root, as (start, end, on the right)."""
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _split(high - low)
        if n < middle:
            path.append((middle, high, True))
            high = middle
        else:
            path.append((low, middle, False))
            low = middle
    return path[::-1]


def _tree_path(size: int, old_size: int) -> tuple[int, list[tuple[int, int, bool]]]:
    """Return where the last subtree common to both trees starts, and the siblings above it."""
    low, high, path = 0, size, []
    while high != old_size:
        middle = low + _split(high - low)
        if old_size <= middle:
            path.append((middle, high, True))
            high = middle
        else:
            path.append((low, middle, False))
            low = middle
    return low, path[::-1]


def _read_ranges(ranges: list[tuple[int, int]], reader: HashReader) -> list[bytes]:
    """Return the hash of each range of records, with one call of the reader."""
    indexes = [subtree_indexes(*span) for span in ranges]
    flat: Iterator[bytes] = iter(reader([index for group in indexes for index in group]))
    return [_range_hash([next(flat) for _ in group]) for group in indexes]


def _range_hash(hashes: Sequence[bytes]) -> bytes:
    """Combine the hashes of complete subtrees, from left to right of falling size."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _check_range(good: bool, what: str) -> None:  # noqa: FBT001 (a condition, as in assert)
    if not good:
        raise ProofError(f"there is no {what}")
