"""Run one service as a process: its gRPC door, its metrics and its stage on the log."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("service", help="generation, verification, difficulty or learning")
    parser.add_argument("dir", help="run directory")
    parser.add_argument("--worker-id", help="unique among workers; default: the service's name and the process id")
    parser.add_argument("--address", default="127.0.0.1:0", help="host:port of the gRPC door; port 0 takes a free one")
    parser.add_argument("--metrics-port", type=int, default=0, help="port of the metrics; 0 takes a free one")
    parser.add_argument("--probe-port", type=int, help="port of health alone, in plain text, for a kubelet's probes")
    parser.add_argument("--advertise", default="", metavar="HOST", help="host by which others reach the door")
    parser.add_argument("--parent", type=int, help="end when this process is gone")


def main(args: argparse.Namespace) -> int:
    # Told to end before there is anything to drain: end. `serve` puts its own handler in this one's place.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from pipeline.processes import end_with
    from pipeline.serve import Ports, serve

    logging.getLogger().setLevel(os.environ.get("SLUICE_LOG_LEVEL", "INFO"))
    if args.parent:
        threading.Thread(target=end_with, args=(args.parent,), daemon=True).start()
    worker_id = args.worker_id or f"{args.service}-{os.getpid()}"
    ports = Ports(args.address, args.metrics_port, args.probe_port, args.advertise)
    return serve(args.service, args.dir, worker_id, ports, alone=not args.parent)
