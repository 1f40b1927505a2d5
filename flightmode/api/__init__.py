"""The agent's HTTPS API: what the node sees, and how people ask the cluster for something.

Nothing here changes the cluster: a wish becomes a record in the store, and the node it
concerns decides.  So an answer of 202 means "written down", and the outcome is asked for.

This file imports nothing: an agent that restarts has its first look before it brings up its API.
"""
