"""A seccomp filter through ctypes: system calls that no computation needs answer EPERM.

A deny-list: numerical libraries use what they find, and a call that is new to a kernel is one that
the files, sockets and processes below do not open. Landlock knows no UDP, so sockets end here.
Numbers: the kernel's tables for x86-64 and the generic one (aarch64).
"""

import ctypes
import errno
import platform
from collections.abc import Iterator, Mapping

PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000

LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT = 0, 4, 16
X32 = 0x40000000  #: x86-64 numbers of another calling convention
CLONE_THREAD = 0x00010000

#: AUDIT_ARCH_* of <linux/audit.h>.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

#: (x86-64, aarch64)
DENIED: Mapping[str, tuple[int, int]] = {
    # sockets
    "socket": (41, 198),
    "socketpair": (53, 199),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "connect": (42, 203),
    # processes
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    # what the process is, and may use; its group is how it is reached
    "setrlimit": (160, 164),
    "unshare": (272, 97),
    "setns": (308, 268),
    "personality": (135, 92),
    "setsid": (112, 157),
    # file systems, and names that point elsewhere
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "mknodat": (259, 33),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    # the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
}

#: Calls that x86-64 has beside the newer ones above.
DENIED_X86_64 = {"fork": 57, "vfork": 58, "link": 86, "symlink": 88, "mknod": 133}

CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
PRLIMIT = {"x86_64": 302, "aarch64": 261}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def is_available() -> bool:
    """Whether there is a filter for this machine, and a kernel that takes filters."""
    is_known = platform.machine() in ARCHITECTURES
    # EFAULT: it would take a filter, if there were one at address 0.
    libc = ctypes.CDLL(None, use_errno=True)
    return (
        is_known
        and libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, None, 0, 0) != 0
        and ctypes.get_errno() == errno.EFAULT
    )


def restrict() -> bool:
    """Whether this thread, and those that it starts, are filtered from now on."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    instructions = list(_instructions(machine))
    array = (_Instruction * len(instructions))(*instructions)
    program = _Program(len(instructions), array)
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0


def _instructions(machine: str) -> Iterator[_Instruction]:
    """The filter: conditions that return, and at the end what allows the rest."""
    yield _Instruction(LOAD, 0, 0, ARCH_AT)
    yield _Instruction(EQUAL, 1, 0, ARCHITECTURES[machine])
    yield _Instruction(RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)
    yield _Instruction(LOAD, 0, 0, NUMBER_AT)
    if machine == "x86_64":
        yield from _when(AT_LEAST, X32, SECCOMP_RET_KILL_PROCESS)
    # Threads start by clone3, whose flags a filter cannot see; without it they start by clone.
    yield from _when(EQUAL, CLONE3, SECCOMP_RET_ERRNO | errno.ENOSYS)
    for number in denied(machine):
        yield from _when(EQUAL, number, SECCOMP_RET_ERRNO | errno.EPERM)
    # A new process is a clone that is no thread.
    yield _Instruction(EQUAL, 0, 4, CLONE[machine])
    yield _Instruction(LOAD, 0, 0, FIRST_ARGUMENT_AT)
    yield _Instruction(ANY_BIT, 1, 0, CLONE_THREAD)
    yield _Instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM)
    yield _Instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW)
    # A limit may be asked for, not set: the address of the new one has to be 0, in both halves.
    yield _Instruction(EQUAL, 0, 5, PRLIMIT[machine])
    yield _Instruction(LOAD, 0, 0, FIRST_ARGUMENT_AT + 16)
    yield _Instruction(EQUAL, 0, 2, 0)
    yield _Instruction(LOAD, 0, 0, FIRST_ARGUMENT_AT + 20)
    yield _Instruction(EQUAL, 1, 0, 0)
    yield _Instruction(RETURN, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM)
    yield _Instruction(RETURN, 0, 0, SECCOMP_RET_ALLOW)


def denied(machine: str) -> list[int]:
    """The numbers of the calls that answer EPERM on this architecture."""
    place = 0 if machine == "x86_64" else 1
    numbers = [numbers[place] for numbers in DENIED.values()]
    if machine == "x86_64":
        numbers += DENIED_X86_64.values()
    return sorted(numbers)


def _when(test: int, value: int, answer: int) -> Iterator[_Instruction]:
    """If the loaded number passes the test, that is the answer."""
    yield _Instruction(test, 0, 1, value)
    yield _Instruction(RETURN, 0, 0, answer)
