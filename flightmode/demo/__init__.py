"""A cluster on one machine, and real failures before your eyes.

Three parts that know nothing of each other: a lab (hosts that can be cut off and switched off),
a workload (clients that write down what they were told), a ledger (was anything of it lost).
"""
