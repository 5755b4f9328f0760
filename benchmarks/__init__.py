"""Measurements that anyone can repeat: each module prints one table. `make bench` runs them all.

Times are those of the machine at hand: compare ratios, not seconds. The yardsticks are found
through the environment variable LIPCERT_SHARED, the folder that holds `yardsticks/`.
"""
