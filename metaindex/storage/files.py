"""The one place that touches files: whatever is opened, read, mapped, written, synced, linked, moved, removed or locked.

The catalog is the exception: SQLite alone opens it. POSIX locks belong to the process, and closing any descriptor of a file
drops all that the process holds on it, those of SQLite's own connections too. So ``Files`` takes no name ``catalog.sqlite``.

A subclass that fails, delays or records operations can stand in for ``Files`` anywhere, which is how faults are tested.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import re
import stat
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

INDEX_NAMES = re.compile(
    r"catalog\.sqlite-journal|lock|readers|coarse-[0-9]{8,12}\.safetensors|"
    r"(tmp|segments)(/[0-9]{8,12}(/(documents|level-[0-9]{1,2})\.safetensors)?)?"
)
ANY_NAME = re.compile(r"(?!\.\.?$)[^/\0]+")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # without O_NONBLOCK a named pipe would hang the open
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL_SECONDS = 0.002
_BLOCK_BYTES = 1 << 20
_WRITE_BYTES = 256 << 10  # what the checksum has read is still in a cache when it is written
_WRITEBACK_BYTES = 1 << 20  # less in one file may well be merged away before it needs to reach the disk


class Written(NamedTuple):
    """What a file holds: its size in bytes and the CRC-32 of its content."""

    size: int
    checksum: int


class Files:
    """The files below one folder. Names are relative to it, must match ``names``, and no link is ever followed.

    ``mapped`` and ``read`` count bytes per name, so that a test can tell what a search needed.
    """

    def __init__(self, root: str | os.PathLike[str], names: re.Pattern[str] = INDEX_NAMES) -> None:
        self.root = os.path.abspath(os.fspath(root))
        self.names = names
        self.mapped: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self._root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Levels that are loaded late keep this object alive, so the folder stays open exactly as long as it is needed.
        weakref.finalize(self, os.close, self._root)

    def path(self, name: str) -> str:
        """The name as a path, for messages and for SQLite, which opens its own file."""
        return os.path.join(self.root, name)

    def head(self, name: str, count: int) -> tuple[bytes, int]:
        """The first ``count`` bytes, or all where there are fewer, and the file's size."""
        with self._open(name, _READ) as (fd, size):
            data = os.pread(fd, count, 0)
        self.read[name] += len(data)
        return data, size

    def tail(self, name: str, count: int) -> bytes:
        """The last ``count`` bytes, or all where there are fewer."""
        with self._open(name, _READ) as (fd, size):
            return os.pread(fd, count, max(0, size - count))

    def stands_at(self, path: str | os.PathLike[str]) -> bool:
        """Whether ``path`` leads to this folder, or another was put in its place."""
        try:
            return os.path.samestat(os.stat(path), os.fstat(self._root))
        except FileNotFoundError:
            return False

    def checksum(self, name: str) -> Written:
        """Read a whole file, block by block."""
        size = checksum = 0
        for block in self.blocks(name):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
        return Written(size, checksum)

    def blocks(self, name: str) -> Iterator[bytes]:
        """The content of a whole file, piece by piece."""
        with self._open(name, _READ) as (fd, _):
            while block := os.read(fd, _BLOCK_BYTES):
                self.read[name] += len(block)
                yield block

    def map(self, name: str) -> NDArray[np.uint8]:
        """The file's bytes, read-only, loaded page by page when they are touched."""
        with self._open(name, _READ) as (fd, size):
            if size == 0:
                return np.empty(0, np.uint8)
            mapping = _Mapping(fd, size)
        self.mapped[name] += size
        return np.asarray(mapping)

    def read_at(self, name: str, pieces: Iterable[tuple[int, memoryview]]) -> bool:
        """Fill each buffer with the bytes from its offset on; False where the file ends before one is full."""
        with self._open(name, _READ) as (fd, _):
            for offset, buffer in pieces:
                while buffer:
                    count = os.preadv(fd, [buffer], offset)
                    if not count:
                        return False
                    self.read[name] += count
                    offset, buffer = offset + count, buffer[count:]
        return True

    def write(self, name: str, chunks: Iterable[NDArray | bytes]) -> Written:
        """A new file of these chunks; it is durable after ``sync``."""
        size = checksum = started = 0
        with self._open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC) as (fd, _):
            for chunk in chunks:
                data = memoryview(chunk) if isinstance(chunk, bytes) else _bytes_of(chunk)
                for start in range(0, len(data), _WRITE_BYTES):
                    block = data[start : start + _WRITE_BYTES]
                    size += len(block)
                    checksum = zlib.crc32(block, checksum)
                    while block:
                        block = block[os.write(fd, block) :]
                    if size - started >= _WRITEBACK_BYTES:
                        _start_writing(fd, started, size - started)
                        started = size
        return Written(size, checksum)

    def link(self, name: str, source: Files) -> None:
        """The file of that name in ``source``, here as well: a hard link. A symbolic link would be linked as one."""
        with source._parent(name) as (old, last), self._parent(name) as (new, _):
            os.link(last, last, src_dir_fd=old, dst_dir_fd=new, follow_symlinks=False)

    def copy(self, name: str, source: Files) -> Written:
        """The file of that name in ``source``, copied block by block; it is durable after ``sync``."""
        return self.write(name, source.blocks(name))

    def sync(self, name: str) -> None:
        """Make the content of a file durable."""
        with self._open(name, _READ) as (fd, _):
            os.fsync(fd)

    def make_folder(self, name: str) -> None:
        with self._parent(name) as (folder, last):
            os.mkdir(last, dir_fd=folder)

    def sync_folder(self, name: str = "") -> None:
        """Make the entries of a folder, by default the root, durable."""
        if not name:
            os.fsync(self._root)
            return
        with self._parent(name) as (folder, last):
            fd = os.open(last, _FOLDER, dir_fd=folder)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def rename(self, source: str, target: str) -> None:
        with self._parent(source) as (source_folder, source_last), self._parent(target) as (target_folder, target_last):
            os.rename(source_last, target_last, src_dir_fd=source_folder, dst_dir_fd=target_folder)

    def exchange(self, one: str, other: str) -> bool:
        """Swap two names in one step, or do nothing and return False where the system can't."""
        if _renameat2 is None:
            return False
        with self._parent(one) as (folder, last), self._parent(other) as (other_folder, other_last):
            if _renameat2(folder, os.fsencode(last), other_folder, os.fsencode(other_last), _RENAME_EXCHANGE) == 0:
                return True
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            return False
        raise OSError(code, os.strerror(code), self.path(one), None, self.path(other))

    def remove_empty(self, name: str) -> None:
        """A folder in which nothing is."""
        with self._parent(name) as (folder, last):
            os.rmdir(last, dir_fd=folder)

    def remove(self, name: str) -> None:
        """A file, or a folder with all that is in it; links are removed, never followed. Absent is fine."""
        with self._parent(name) as (folder, last):
            _remove(folder, last)

    def list(self, name: str = "") -> list[str]:
        """The names in a folder, by default the root."""
        if not name:
            return os.listdir(self._root)
        with self._parent(name) as (folder, last):
            fd = os.open(last, _FOLDER, dir_fd=folder)
            try:
                return os.listdir(fd)
            finally:
                os.close(fd)

    def lock(self, name: str, *, shared: bool = False, wait: float = 0) -> Lock:
        """Lock a file that exists.

        Raises:
            BlockingIOError: another holder was in the way for ``wait`` seconds.
        """
        with self._parent(name) as (folder, last):
            # Both kinds of lock work on a descriptor for reading, so that readers need no right to write.
            lock = Lock(os.open(last, _READ, dir_fd=folder))
        try:
            lock.acquire(fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)
        except BaseException:
            lock.forget()
            raise
        return lock

    def holders(self, name: str) -> set[int]:
        """The processes that hold a lock on a file, as far as the system tells."""
        with self._open(name, _READ) as (fd, _):
            status = os.fstat(fd)
        where = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        try:
            with open("/proc/locks") as locks:
                found = [line.split() for line in locks]
        except OSError:
            return set()
        return {int(words[4]) for words in found if words[1:2] == ["FLOCK"] and words[5:6] == [where]} - {0, -1}

    def note(self, name: str, text: str) -> None:
        """Replace the content of a small file in place; nothing depends on it."""
        with self._open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC) as (fd, _):
            os.ftruncate(fd, 0)
            os.write(fd, text.encode())

    @contextmanager
    def _parent(self, name: str) -> Iterator[tuple[int, str]]:
        if not self.names.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a file of an index")
        *folders, last = name.split("/")
        fd = self._root
        try:
            for folder in folders:
                outer, fd = fd, os.open(folder, _FOLDER, dir_fd=fd)
                if outer != self._root:
                    os.close(outer)
            yield fd, last
        finally:
            if fd != self._root:
                os.close(fd)

    @contextmanager
    def _open(self, name: str, flags: int) -> Iterator[tuple[int, int]]:
        with self._parent(name) as (folder, last):
            fd = os.open(last, flags, 0o666, dir_fd=folder)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", self.path(name))
            yield fd, status.st_size
        finally:
            os.close(fd)


def _start_writing(fd: int, offset: int, count: int) -> None:
    """Begin with what ``sync`` waits for. Only a hint: where it does nothing, or fails, ``sync`` has more to do and tells of
    what went wrong."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


def _bytes_of(array: NDArray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


class Lock:
    """A lock that the kernel drops with the process, at the latest."""

    _fd: int | None = None

    def __init__(self, fd: int) -> None:
        self._fd = fd
        _locks.add(self)

    def acquire(self, kind: int, wait: float) -> None:
        assert self._fd is not None
        deadline = time.monotonic() + wait
        while True:
            try:
                return fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            self.forget()

    def forget(self) -> None:
        """Close the descriptor; in a forked child this leaves the parent's lock as it is."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __del__(self) -> None:
        self.forget()


_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_inherited_locks() -> None:
    # A child that outlives its parent would otherwise keep the index locked.
    for lock in list(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_forget_inherited_locks)


def _remove(folder: int, name: str) -> None:
    if _unlinked(folder, name):
        return
    with suppress(FileNotFoundError), _opened(folder, name) as top:  # another thread may remove the same
        while inside := os.listdir(top):
            for inner in inside:
                if not _unlinked(top, inner):
                    with suppress(FileNotFoundError):
                        _flatten(top, inner)
        os.rmdir(name, dir_fd=folder)


def _unlinked(folder: int, name: str) -> bool:
    """Whether it is gone; a folder that holds something is not."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError) as denied:  # unlink of a folder is EISDIR on Linux, EPERM elsewhere
        try:
            os.rmdir(name, dir_fd=folder)
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            raise denied from None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
    return True


def _flatten(top: int, name: str) -> None:
    """Remove a folder, after what it holds was removed or moved up to ``top``: no depth needs a deep stack or many files."""
    with _opened(top, name) as fd:
        for inner in os.listdir(fd):
            if not _unlinked(fd, inner):
                os.rename(inner, os.urandom(16).hex(), src_dir_fd=fd, dst_dir_fd=top)
    os.rmdir(name, dir_fd=top)


@contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    fd = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


class _Mapping:
    """A private mmap call: Python's own keeps a descriptor open per mapping, and an index may have thousands of levels."""

    def __init__(self, fd: int, size: int) -> None:
        address = _mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address == ctypes.c_void_p(-1).value:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._address, self._size = address, size
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": "|u1", "version": 3}

    def __del__(self) -> None:
        if hasattr(self, "_address"):
            _munmap(self._address, self._size)


_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap = _libc.mmap, _libc.munmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = getattr(_libc, "sync_file_range", None)  # Linux only
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

_RENAME_EXCHANGE = 2
_renameat2 = getattr(_libc, "renameat2", None)  # glibc 2.28, musl 1.2.5
if _renameat2 is not None:
    _renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
