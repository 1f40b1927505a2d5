"""A whole cluster in one process, in virtual time, from one seed.

The agent loop, `decide`, the executor and the store's words run as they are shipped; what
they touch is simulated, and is as nasty as the real thing can be.  Nothing imports this.
"""
