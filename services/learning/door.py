"""The learning service's gRPC door: where is it, and a checkpoint on demand."""

from __future__ import annotations

import time

import grpc

from services.learning.handler import LearningHandler
from sluice.v1 import learning_pb2, learning_pb2_grpc, training_pb2

LONGEST_S = 600.0
LOOK_EVERY_S = 0.05


class Door(learning_pb2_grpc.LearningServiceServicer):
    """Over the stage's handler; only what other threads may call is called."""

    def __init__(self, handler: LearningHandler) -> None:
        self.handler = handler

    def Progress(
        self, request: learning_pb2.ProgressRequest, context: grpc.ServicerContext
    ) -> learning_pb2.ProgressResponse:
        """Where the learner is."""
        return self.handler.progress()

    def SaveCheckpoint(
        self, request: learning_pb2.SaveCheckpointRequest, context: grpc.ServicerContext
    ) -> training_pb2.Checkpoint:
        """Write a checkpoint, and answer once the log names it."""
        before = self.handler.checkpoint
        deadline = time.monotonic() + min(LONGEST_S, context.time_remaining() or LONGEST_S)
        self.handler.save_soon()
        while self.handler.checkpoint is before:
            if time.monotonic() > deadline or not context.is_active():
                said = self.handler.trouble or "the step before it is not over"
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no checkpoint was written in time: {said}")
            time.sleep(LOOK_EVERY_S)
        return self.handler.checkpoint
