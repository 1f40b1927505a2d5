"""Torment for a real cluster: three nodes in network namespaces, faults by a seed.

The simulator shows that the rules hold in a world that we wrote ourselves; here PostgreSQL, etcd,
the kernel's network and a disk of its own for each node have their say.  What clients were told is
kept, and checked apart from the run.
"""
