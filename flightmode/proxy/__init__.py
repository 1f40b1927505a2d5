"""The middleware beside an application: a pool that always knows the primary, and holds clients
through a failover.

The data path is Rust (`rust/proxy`, as `flightmode._native`) in threads of its own; this room
tells it what flightmode.toml says, and who is primary by what the store says.
"""
