"""The long-running service of a node: observe, decide, act, write it down."""
