"""The hand that reaches other hosts: commands and files over SSH, their keys pinned."""
