from sluice.v1 import posterior_pb2 as _posterior_pb2
from sluice.v1 import prompt_pb2 as _prompt_pb2
from sluice.v1 import training_pb2 as _training_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NextRequest(_message.Message):
    __slots__ = ("n",)
    N_FIELD_NUMBER: _ClassVar[int]
    n: int
    def __init__(self, n: _Optional[int] = ...) -> None: ...

class Choice(_message.Message):
    __slots__ = ("prompt_id", "rollouts", "belief", "score")
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    BELIEF_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    rollouts: int
    belief: _prompt_pb2.Belief
    score: float
    def __init__(self, prompt_id: _Optional[str] = ..., rollouts: _Optional[int] = ..., belief: _Optional[_Union[_prompt_pb2.Belief, _Mapping]] = ..., score: _Optional[float] = ...) -> None: ...

class NextResponse(_message.Message):
    __slots__ = ("choices",)
    CHOICES_FIELD_NUMBER: _ClassVar[int]
    choices: _containers.RepeatedCompositeFieldContainer[Choice]
    def __init__(self, choices: _Optional[_Iterable[_Union[Choice, _Mapping]]] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("prompt_id", "accuracy", "version", "diversity")
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    accuracy: float
    version: int
    diversity: float
    def __init__(self, prompt_id: _Optional[str] = ..., accuracy: _Optional[float] = ..., version: _Optional[int] = ..., diversity: _Optional[float] = ...) -> None: ...

class ObserveRequest(_message.Message):
    __slots__ = ("observations",)
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    observations: _containers.RepeatedCompositeFieldContainer[Observation]
    def __init__(self, observations: _Optional[_Iterable[_Union[Observation, _Mapping]]] = ...) -> None: ...

class ObserveResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    def __init__(self, accepted: _Optional[int] = ...) -> None: ...

class PosteriorRequest(_message.Message):
    __slots__ = ("prompt_ids",)
    PROMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    prompt_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, prompt_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PosteriorResponse(_message.Message):
    __slots__ = ("states",)
    STATES_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[_posterior_pb2.PosteriorState]
    def __init__(self, states: _Optional[_Iterable[_Union[_posterior_pb2.PosteriorState, _Mapping]]] = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SnapshotResponse(_message.Message):
    __slots__ = ("prompts", "size_bytes", "sha256", "covers")
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    COVERS_FIELD_NUMBER: _ClassVar[int]
    prompts: int
    size_bytes: int
    sha256: bytes
    covers: _containers.RepeatedCompositeFieldContainer[_training_pb2.Offset]
    def __init__(self, prompts: _Optional[int] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., covers: _Optional[_Iterable[_Union[_training_pb2.Offset, _Mapping]]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("prompt_id",)
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    def __init__(self, prompt_id: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("state", "belief", "sampler", "score", "percentile", "compared", "busy", "sentence")
    STATE_FIELD_NUMBER: _ClassVar[int]
    BELIEF_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    PERCENTILE_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    state: _posterior_pb2.PosteriorState
    belief: _prompt_pb2.Belief
    sampler: str
    score: float
    percentile: float
    compared: int
    busy: bool
    sentence: str
    def __init__(self, state: _Optional[_Union[_posterior_pb2.PosteriorState, _Mapping]] = ..., belief: _Optional[_Union[_prompt_pb2.Belief, _Mapping]] = ..., sampler: _Optional[str] = ..., score: _Optional[float] = ..., percentile: _Optional[float] = ..., compared: _Optional[int] = ..., busy: bool = ..., sentence: _Optional[str] = ...) -> None: ...
