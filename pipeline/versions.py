"""A run's policy versions as the log holds them: listing, exporting, verifying. What `sluice weights` does.

The newest manifest names the chain from the second newest anchor on: those versions can be put together again, older
ones are gone. Which worker has applied what, and when, is in the workers' last words.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path

from pipeline import anchors, base_model, chain, config, lora, records
from pipeline.errors import SluiceError, UserError
from pipeline.held import Held
from pipeline.log.api import Log, read_all
from pipeline.rundir import RunDir
from sluice.v1 import control_pb2, weights_pb2

SERVING_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
WEIGHT_FILES = ("*.index.json",)


def newest(directory: RunDir, log: Log) -> weights_pb2.WeightManifest:
    """The newest manifest. Raises `UserError` when no version was announced."""
    topic = directory.names().topic("weights-manifest")
    found = [records.decode_as(weights_pb2.WeightManifest, record) for record in read_all(log, topic) if record.value]
    if not found:
        raise UserError(f"run {str(directory.path)!r} has announced no weights; accepted: a run that has begun")
    return max(found, key=lambda one: (one.epoch, one.version))


def reachable(manifest: weights_pb2.WeightManifest) -> list[weights_pb2.WeightManifest]:
    """A manifest for every version that the newest one leads to, oldest first, as it was when that was the newest."""
    found: dict[int, weights_pb2.WeightManifest] = {}
    for at, part in enumerate(manifest.parts):
        one = weights_pb2.WeightManifest()
        one.CopyFrom(manifest)
        one.version = part.version
        del one.parts[at + 1 :]
        if part.version != manifest.version:
            for spec in one.tensors:
                spec.ClearField("digest")
        found[part.version] = one
    return list(found.values())


def load(directory: RunDir, log: Log, manifest: weights_pb2.WeightManifest) -> Held:
    """The policy of a manifest, verified."""
    held = Held()
    chain.fetch(log, config.weights_store(directory.run()), manifest, held)
    return held


def export(directory: RunDir, log: Log, version: str, folder: str) -> int:
    """Write a version as a Hugging Face folder, whole or not at all; returns its number.

    Of a LoRA run that is the merged model in float32, with the adapter in a folder inside.
    """
    target = Path(folder)
    if target.exists():
        raise UserError(f"{folder!r} exists; accepted: a folder that does not")
    if not target.absolute().parent.is_dir():
        raise UserError(f"{folder!r} is in no folder; accepted: a name in a folder that exists")
    manifests = {one.version: one for one in reachable(newest(directory, log))}
    wanted = max(manifests) if version == "newest" else int(version) if version.isdigit() else None
    if wanted not in manifests:
        held = f"{min(manifests)} to {max(manifests)}" if len(manifests) > 1 else str(max(manifests))
        raise UserError(f"version is {version!r}; accepted: newest, or what the log still holds ({held})")
    held = load(directory, log, manifests[wanted])
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.absolute().parent))
    adapter = config.adapter(directory.run())
    if adapter is None:
        _whole(held, directory.folder("base"), aside)
        aside.rename(target)
    else:
        _adapter(held, adapter, aside)
        base_model.merge(directory, aside, target.absolute())
        shutil.rmtree(aside)
    return wanted


def _whole(held: Held, base: Path, aside: Path) -> None:
    """Every weight, and what `base` has beside its own."""
    for file in (path for pattern in SERVING_FILES for path in base.glob(pattern)):
        if not any(file.match(pattern) for pattern in WEIGHT_FILES):
            shutil.copyfile(file, aside / file.name)
    _say_dtype(aside / "config.json", held)
    anchors.save(aside / "model.safetensors", held)
    aside.chmod(0o755)


def _adapter(held: Held, adapter: lora.Adapter, aside: Path) -> None:
    """The adapter as PEFT writes one."""
    (aside / lora.CONFIG).write_text(json.dumps(lora.description(adapter, held.specs), indent=2))
    anchors.save(aside / lora.WEIGHTS, held)


def verify(directory: RunDir, log: Log, as_json: bool) -> int:
    """Put every version together that the log holds, in every way that it holds; prints what is wrong.

    0 when nothing is, else 1.
    """
    found, held = [], Held()
    for manifest in reachable(newest(directory, log)):
        found.append((manifest.version, "chain", _wrong(directory, log, manifest, held)))
        if manifest.parts[-1].anchor and len(manifest.parts) > 1:
            del manifest.parts[:-1]
            found.append((manifest.version, "anchor", _wrong(directory, log, manifest, Held())))
    if as_json:
        print(json.dumps([{"version": version, "by": by, "wrong": wrong} for version, by, wrong in found]))
    else:
        for version, by, wrong in found:
            print(f"version {version}, by its {by}: {wrong or 'good'}")
    return int(any(wrong for _, _, wrong in found))


def _wrong(directory: RunDir, log: Log, manifest: weights_pb2.WeightManifest, held: Held) -> str:
    """Why a version cannot be had; empty when it can."""
    try:
        chain.fetch(log, config.weights_store(directory.run()), manifest, held)
    except SluiceError as error:
        return str(error)
    return f"values that are not finite in {', '.join(held.unfinite())}" if held.unfinite() else ""


def rows(manifest: weights_pb2.WeightManifest) -> list[dict[str, object]]:
    """One row for each part: version, kind, where, coded bytes, share of the dense bytes, density."""
    return [
        {
            "version": part.version,
            "kind": "anchor" if part.anchor else "delta",
            "where": "store" if part.HasField("claim") else "log",
            "bytes": part.size_bytes,
            "of_dense": part.size_bytes / max(manifest.dense_bytes, 1),
            "density": part.density,
        }
        for part in manifest.parts
    ]


def applied(directory: RunDir, log: Log) -> list[dict[str, object]]:
    """Each generation worker's version, and when it was applied (Unix time, 0 when it never was)."""
    topic = directory.names().topic("workers")
    newest_of: dict[str, control_pb2.WorkerStatus] = {}
    for record in read_all(log, topic):
        if record.value:
            status = records.decode_as(control_pb2.WorkerStatus, record)
            if status.version or status.worker_id not in newest_of:  # a worker's last words name no version
                newest_of[status.worker_id] = status
    workers = [one for _, one in sorted(newest_of.items()) if one.service == "generation"]
    return [
        {
            "worker": one.worker_id,
            "version": one.version,
            "applied_at": one.gauges.get("applied_at", 0.0),
            "trouble": one.reason,
        }
        for one in workers
    ]


def show(directory: RunDir, log: Log, as_json: bool) -> None:
    """Print versions and workers."""
    manifest = newest(directory, log)
    workers = applied(directory, log)
    if as_json:
        print(json.dumps({"versions": rows(manifest), "workers": workers, "dense_bytes": manifest.dense_bytes}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("version", "kind", "on", "bytes", "of dense", "values changed")
    for one in rows(manifest):
        share, density = f"{one['of_dense']:.2%}", f"{one['density']:.3%}"
        table.add_row(str(one["version"]), str(one["kind"]), str(one["where"]), f"{one['bytes']:,}", share, density)
    console = Console()
    console.print(table)
    for one in workers:
        since = (
            time.strftime("%H:%M:%S", time.localtime(float(str(one["applied_at"])))) if one["applied_at"] else "never"
        )
        console.print(f"{one['worker']}: version {one['version']}, applied {since} {one['trouble']}".rstrip())


def _say_dtype(path: Path, held: Held) -> None:
    """The type of the weights in `config.json`, where they are all of one."""
    types = {spec.dtype for spec in held.specs.values()}
    if len(types) == 1:
        tree = json.loads(path.read_text())
        tree.pop("torch_dtype", None)
        path.write_text(json.dumps(tree | {"dtype": types.pop()}, indent=2))
