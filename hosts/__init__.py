"""Real hosts on one machine: Debian with systemd and sshd, each in a network of its own.

They are `systemd-nspawn` containers on overlays of one debootstrapped image, and are to tests and
rehearsals what a VPS is to a founder: bare, reached by ssh, and able to lose power.
"""
