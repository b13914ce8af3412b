"""A Secret as files, as the kubelet mounts it into a pod: for the real programs that read them."""

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from support.stage import Tenant

DATA: Final = "..data"
"""The link that the kubelet turns over, so that all files of a mounted Secret change at once."""


def mount(directory: Path, content: Mapping[str, bytes], *, mode: int = 0o400) -> Path:
    """Every key as a link to a file of the current version; done again, all of them change at once.

    Args:
        directory: Where; made if missing.
        content: The data of the Secret.
        mode: `defaultMode` of the volume, the same for every file.

    Returns:
        The directory.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    current, link = directory / DATA, directory / f"{DATA}_tmp"
    earlier = current.resolve() if current.exists() else None
    version = directory / f"..{secrets.token_hex(4)}"
    version.mkdir(mode=0o755)
    for name, value in content.items():
        path = version / name
        path.touch(mode=0o600)
        path.write_bytes(value)
        path.chmod(mode)
    link.symlink_to(version.name)
    link.replace(current)
    for name in content:
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path(DATA) / name)
    for path in list(directory.iterdir()):
        if not path.name.startswith("..") and path.name not in content:
            path.unlink()
    if earlier is not None:
        shutil.rmtree(earlier)
    return directory


def mounted(tenant: Tenant, directory: Path, name: str) -> Path:
    """The Secret of an output, once that is Ready, as files below the directory; again, the files are brought up to date."""
    tenant.ready(name)
    return mount(directory / name, tenant.secret(name).data)
