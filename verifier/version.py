"""The version of the package, in one place that imports nothing."""

VERSION = "0.1.0"

#: What every certificate says of its producer; programs that take up a sandbox say so in its place.
PRODUCER = {"version": VERSION, "sandbox": "none"}
