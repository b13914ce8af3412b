"""The join API on the wire: its paths and its messages, the same for who serves it and who asks. No I/O here.

`docs/openapi.json` is generated from these models (`make openapi`).
"""
