"""Certificates for doors and their callers, made with openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.access import Access


def make_all(folder: Path) -> Path:
    """Two authorities, `ca` and a stranger; certificates for the server and its callers, one of them expired."""
    for ca in ("ca", "other"):
        make_key(folder, ca)
        openssl(
            "req", "-x509", "-key", f"{ca}.key", "-subj", f"/CN={ca}", "-days", "2", "-out", f"{ca}.crt", cwd=folder
        )
    for name, ca in (("server", "ca"), ("admin", "ca"), ("reader", "ca"), ("nobody", "ca"), ("stranger", "other")):
        sign(folder, name, ca)
    sign(folder, "expired", "ca", past=True)
    return folder


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


def make_key(folder: Path, name: str) -> None:
    openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{name}.ec", cwd=folder)
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", f"{name}.ec", "-out", f"{name}.key", cwd=folder)


def sign(folder: Path, name: str, ca: str, past: bool = False) -> None:
    make_key(folder, name)
    openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr", cwd=folder)
    (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{name}\n")
    if not past:
        signing = ["x509", "-req", "-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2"]
        openssl(*signing, "-in", f"{name}.csr", "-extfile", f"{name}.ext", "-out", f"{name}.crt", cwd=folder)
        return
    (folder / "index.txt").write_text("")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        "[p]\ncommonName=supplied\n"
    )
    (folder / "serial").write_text("77\n")
    when = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
    files = ["-cert", f"{ca}.crt", "-keyfile", f"{ca}.key", "-extfile", f"{name}.ext"]
    openssl(
        "ca",
        "-batch",
        "-config",
        "ca.conf",
        *files,
        *when,
        "-in",
        f"{name}.csr",
        "-out",
        f"{name}.crt",
        "-notext",
        cwd=folder,
    )


def held(folder: Path, name: str, ca: str = "ca") -> Access:
    """Somebody's certificate, and the authority he trusts."""
    return Access(*(str(folder / file) for file in (f"{name}.crt", f"{name}.key", f"{ca}.crt")), server_name="server")


def renew(folder: Path, name: str, made: Path, other: str) -> None:
    """Put the certificate and key of `other` in place of those of `name`, as a renewal does."""
    for kind in ("crt", "key"):
        (folder / f"{name}.{kind}").write_bytes((made / f"{other}.{kind}").read_bytes())
