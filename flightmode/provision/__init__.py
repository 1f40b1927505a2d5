"""From bare Debian hosts to what flightmode.toml says: facts -> plan -> apply.

- `wanted`: what a host shall have, made from flightmode.toml and what `init` made (pure)
- `facts`: what a host has: one script, and the reading of its answer (pure)
- `plan`: the difference, as steps in their order (pure)
- `apply`: the steps, on all hosts at once
- `turns`: restarts on a cluster that serves, one host after the other
- `spent`: what of a run's time went where (pure)
- `wheels`: Flightmode itself, as wheels that need no package index on the host
"""
