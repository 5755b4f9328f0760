"""What processes that read models or certificates may know of the environment: no secrets."""

import os
from collections.abc import Mapping

#: What Python, its libraries and their threads look at; everything else stays here.
PASSED_ON = (
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "SYSTEMROOT",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
)
PASSED_ON_PREFIXES = ("CUDA_", "LC_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "ORT_")


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that is passed on."""
    return {
        name: value
        for name, value in environment.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }


def forget_secrets() -> None:
    """Leave this process, and so its children, what is passed on."""
    known = without_secrets(os.environ)
    os.environ.clear()
    os.environ.update(known)


def limit_threads(threads: int) -> None:
    """Set before any import of a numeric library, here and so in every child."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
