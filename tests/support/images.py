"""Images made on this machine, for no registry is asked for any."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BUSYBOX = "prefect-jobs-test/busybox:1"
PYTHON = "prefect-jobs-test/python:1"


class Missing(Exception):
    """A program is not there; the message says which, and how to get it."""


def has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0


def busybox_image() -> str:
    """An image of 2 MB: a shell and its tools, no Python."""
    if has_image(BUSYBOX):
        return BUSYBOX
    program = _program("busybox", "busybox-static")
    with tempfile.TemporaryDirectory(prefix="prefect-jobs-busybox-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "bin").mkdir()
        (folder / "tmp").mkdir()
        shutil.copy(program, folder / "bin/busybox")
        for applet in subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split():
            if applet != "busybox":
                (folder / "bin" / applet).symlink_to("busybox")
        _import(folder, BUSYBOX, "ENV FROM_IMAGE=kept", "WORKDIR /tmp")
    return BUSYBOX


def python_image() -> str:
    """A Debian image with Python, pip and this machine's certificates: what python:3-slim is elsewhere."""
    if has_image(PYTHON):
        return PYTHON
    program = _program("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory(prefix="prefect-jobs-python-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        subprocess.run(
            [program, "--variant=minbase", packages, "bookworm", folder], check=True, stdout=subprocess.DEVNULL
        )
        certificates = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
        shutil.copy(certificates, folder / "etc/ssl/certs/ca-certificates.crt")
        (folder / "usr/bin/python").symlink_to("python3")
        _import(folder, PYTHON, "ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_CERT=/etc/ssl/certs/ca-certificates.crt")
    return PYTHON


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Missing(f"no {name}: apt-get install {package}")
    return found


def _import(folder: Path, name: str, *changes: str) -> None:
    options = [word for change in changes for word in ("--change", change)]
    with subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE) as packing:
        subprocess.run(
            ["docker", "import", *options, "-", name], stdin=packing.stdout, check=True, stdout=subprocess.DEVNULL
        )
    assert packing.returncode == 0, f"tar ended with exit code {packing.returncode}"
