"""The version of the package, in one place that imports nothing."""

VERSION = "0.1.0"
