"""The types of output: what each asks of the authority, and the keys that it puts into the Secret. One file a type.

A type is found by its module: every module here whose name has no leading underscore and that defines `OUTPUT`.
"""
