"""What all tests share: the profiles of hypothesis, and nothing else.

LIPCERT_TESTS=quick | full | nightly chooses how many examples a property is tried on.
"""

import os

from hypothesis import HealthCheck, settings

for name, examples in (("quick", 25), ("full", 200), ("nightly", 5000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,  # other processes share the machine
        derandomize=name != "nightly",  # the same examples in every run of a pull request
        database=None if name != "nightly" else settings.get_profile("default").database,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("LIPCERT_TESTS", "quick"))
