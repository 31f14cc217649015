"""List the topics: nouns, writers, readers, how long they are kept; with --acls, each service's rights."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", nargs="?", help="run directory: show what its topics hold")
    parser.add_argument("--acls", action="store_true", help="print the least rights per service; NAME*: a prefix")
    parser.add_argument("--json", action="store_true", help="print name, partitions and Kafka settings of each as JSON")
    parser.add_argument("--prefix", default="sluice", help="topic prefix, for --acls")
    parser.add_argument("--run", default="demo", help="run, for --acls")


def main(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pipeline import topics

    if args.json:
        return _json()
    if args.acls:
        return _acls(topics.Names(args.prefix, args.run))
    held = _held(args.dir) if args.dir else None
    table = Table("topic", "nouns", "key", "kept", *(["written by", "read by"] if held is None else ["holds"]))
    for topic in topics.TOPICS:
        kept = "newest per key" if topic.compacted else "until trimmed" if topic.retention_s is None else _hours(topic)
        row = [topic.name, ", ".join(topic.nouns), topic.key, kept]
        if held is None:
            row += [", ".join(topic.writers), ", ".join((*topic.readers, topics.OPERATOR))]
        else:
            row.append(f"{held[topic.name]:,}" if topic.name in held else "")
        table.add_row(*row)
    Console().print(table)
    return 0


def _json() -> int:
    import json

    from pipeline.log.kafka_topics import kafka_config
    from pipeline.topics import TOPICS, Names, config

    made = [(topic, config(topic, Names("sluice", "run"), local=False)) for topic in TOPICS]
    rows = [{"name": topic.name, "partitions": one.partitions, "config": kafka_config(one)} for topic, one in made]
    print(json.dumps(rows, indent=1))
    return 0


def _hours(topic) -> str:
    return f"{topic.retention_s / 3600:.0f} h"


def _held(path: str) -> dict[str, int]:
    from pipeline.rundir import RunDir
    from pipeline.topics import TOPICS

    directory = RunDir.of(path)
    log, names = directory.open_log(), directory.names()
    try:
        there = set(log.topics(f"{names.prefix}.{names.run}."))  # an archive leaves some out
        return {
            topic.name: sum(end - first for first, end in log.bounds(names.topic(topic.name)).values())
            for topic in TOPICS
            if names.topic(topic.name) in there
        }
    finally:
        log.close()


def _acls(names) -> int:
    from pipeline.topics import OPERATOR, SERVICES, rights

    for service in (*SERVICES, OPERATOR):
        for operation, kind, name in rights(service, names):
            print(f"{service:13}{operation:>7} {kind} {name}")
    return 0
