"""Heartbeats between the nodes: sent, heard, and checked for who sent them."""
