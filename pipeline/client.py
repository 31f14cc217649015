"""Asking a running service: channels with deadlines, and workers found by what they say of themselves on the log."""

from __future__ import annotations

import grpc

from pipeline import access, door
from pipeline.access import MAX_MESSAGE_BYTES
from sluice.v1 import control_pb2, control_pb2_grpc, generation_pb2_grpc, verification_pb2_grpc

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]


class Client:
    """A service's doors at one address. Every call takes its own deadline."""

    def __init__(self, address: str) -> None:
        self.channel = door.channel(address, access.from_environment(), OPTIONS)
        self.operator = control_pb2_grpc.OperatorServiceStub(self.channel)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.verification = verification_pb2_grpc.VerificationServiceStub(self.channel)

    def status(self, timeout: float = 2.0) -> control_pb2.WorkerStatus | None:
        """What it is doing; None when it does not answer."""
        try:
            return self.operator.Status(control_pb2.StatusRequest(), timeout=timeout)
        except grpc.RpcError:
            return None

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()
