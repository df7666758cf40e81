"""One durable HDF5 file: transactions, recovery, consistent reads, locks. Knows no records."""

from gamwarm.storage import redo_journal, vfs
from gamwarm.storage.coherence import PROBE_PREFIX, Coherence, Safety, meet_peer, try_two
from gamwarm.storage.container import EXIT_PATIENCE, Container, clean_up_all, in_use_here
from gamwarm.storage.directory_probe import DirectoryProbe, probe, remember
from gamwarm.storage.fork_safe_lock import ForkSafeLock
from gamwarm.storage.header import (
    BODY_OFFSET,
    HDF5_SIGNATURE,
    HEADER_BYTES,
    PAGE,
    SIGNATURE_OFFSET,
    USER_BLOCK,
    UUID_BYTES,
    UUID_OFFSET,
    Header,
    TornHeader,
    parse,
)
from gamwarm.storage.locks import LOCK_CHOICES, LockChoice, choose_lock
from gamwarm.storage.neighbours import journal_path, make_scratch, scratch_path
from gamwarm.storage.overlay import Overlay
from gamwarm.storage.pager import missing
from gamwarm.storage.reader import Peek, RetryRead, Snapshot
from gamwarm.storage.replace import fill_through
from gamwarm.storage.vfs import (
    explain,
    not_of_the_file,
    open_auxiliary,
    out_of_memory,
    refuse_existing,
    replace_text,
    status_of,
    typed,
)

__all__ = [
    "BODY_OFFSET",
    "EXIT_PATIENCE",
    "HDF5_SIGNATURE",
    "HEADER_BYTES",
    "LOCK_CHOICES",
    "PAGE",
    "PROBE_PREFIX",
    "SIGNATURE_OFFSET",
    "USER_BLOCK",
    "UUID_BYTES",
    "UUID_OFFSET",
    "Coherence",
    "Container",
    "DirectoryProbe",
    "ForkSafeLock",
    "Header",
    "LockChoice",
    "Overlay",
    "Peek",
    "RetryRead",
    "Safety",
    "Snapshot",
    "TornHeader",
    "choose_lock",
    "clean_up_all",
    "explain",
    "fill_through",
    "in_use_here",
    "journal_path",
    "make_scratch",
    "meet_peer",
    "missing",
    "not_of_the_file",
    "open_auxiliary",
    "out_of_memory",
    "parse",
    "probe",
    "redo_journal",
    "refuse_existing",
    "remember",
    "replace_text",
    "scratch_path",
    "status_of",
    "try_two",
    "typed",
    "vfs",
]
