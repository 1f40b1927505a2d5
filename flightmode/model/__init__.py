"""The words of the system: frozen values, standard library only, no clock, no I/O.

Everything that is decided, stored, journalled or shown is made of these.
"""
