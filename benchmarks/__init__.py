"""Measurements that anyone can repeat: each module prints one table.

`make bench` runs those of the mathematics, `make drill` the long ones of the service. Times are
those of the machine at hand: compare ratios, not seconds. The yardsticks are found
through the environment variable LIPCERT_SHARED, the folder that holds `yardsticks/`.
"""
