"""The join methods: one file each in `methods/`, with the model of its settings and the table of what its proof must say.

Pure but for what `base.Outside` is asked: who fetches keys and sends requests stands elsewhere (`machinebot.issuers`).
"""
