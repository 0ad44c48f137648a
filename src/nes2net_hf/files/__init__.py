"""Finds, claims, checksums and writes files and folders, whole or not at all, and reads tables."""

from .checksums import sha256_of
from .claiming import claim
from .continuing import begin, check_same_work
from .reasons import DISK_ERRORS, explained, write_reason
from .walking import Found, walk_files
from .writing import atomic_file, atomic_files, atomic_folder, check_suffix

__all__ = [
    "DISK_ERRORS",
    "Found",
    "atomic_file",
    "atomic_files",
    "atomic_folder",
    "begin",
    "check_same_work",
    "check_suffix",
    "claim",
    "explained",
    "sha256_of",
    "walk_files",
    "write_reason",
]
