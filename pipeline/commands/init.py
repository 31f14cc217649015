"""Write a commented run file with every field at its default."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="run.yaml", help="where to write it")
    parser.add_argument("--schema", action="store_true", help="print the JSON schema of the run file instead")
    parser.add_argument("--force", action="store_true", help="write over an existing file")


def main(args: argparse.Namespace) -> int:
    import json

    from pipeline import config

    if args.schema:
        print(json.dumps(config.schema(), indent=2))
        return 0
    file = Path(args.file)
    if file.exists() and not args.force:
        raise UserError(f"{args.file!r} exists; accepted: a new name, or --force")
    if file.is_dir():
        raise UserError(f"{args.file!r} is a folder; accepted: a file's name")
    if not file.parent.is_dir():
        raise UserError(f"folder {str(file.parent)!r} does not exist; accepted: an existing folder")
    file.write_text(_text(config.Run, config.Run()))
    print(f"{args.file} written; `sluice run {args.file}` runs it")
    return 0


def _text(section, values, indent: str = "") -> str:
    import json

    lines = []
    for name, field in section.model_fields.items():
        value = getattr(values, name)
        if hasattr(value, "model_fields"):
            lines += ["", f"{indent}{name}:  # {(type(value).__doc__ or '').strip()}"]
            lines.append(_text(type(value), value, indent + "  "))
            continue
        change = field.json_schema_extra["change"]
        lines.append(f"{indent}# {field.description} ({change})")
        lines.append(f"{indent}{name}: {json.dumps(value)}")
    return "\n".join(lines) + ("\n" if not indent else "")
