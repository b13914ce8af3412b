"""Which of two resourceVersions is the later one."""


def is_newer(version: str, known: str) -> bool:
    """Whether a resourceVersion is after another: they are numbers that grow (KEP-5504, guaranteed since 1.35).

    Where they are no numbers, anything different is taken for newer.
    """
    if version.isdecimal() and known.isdecimal():
        return int(version) > int(known)
    return version != known
