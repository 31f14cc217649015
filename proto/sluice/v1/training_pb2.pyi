from sluice.v1 import rollout_pb2 as _rollout_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Fate(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FATE_UNSPECIFIED: _ClassVar[Fate]
    FATE_TRAINED: _ClassVar[Fate]
    FATE_DROPPED: _ClassVar[Fate]
    FATE_EXPIRED: _ClassVar[Fate]
    FATE_FAILED: _ClassVar[Fate]
FATE_UNSPECIFIED: Fate
FATE_TRAINED: Fate
FATE_DROPPED: Fate
FATE_EXPIRED: Fate
FATE_FAILED: Fate

class Use(_message.Message):
    __slots__ = ("key", "use", "weight", "advantage", "lag", "group_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    USE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    key: _rollout_pb2.RolloutKey
    use: int
    weight: float
    advantage: float
    lag: float
    group_id: str
    def __init__(self, key: _Optional[_Union[_rollout_pb2.RolloutKey, _Mapping]] = ..., use: _Optional[int] = ..., weight: _Optional[float] = ..., advantage: _Optional[float] = ..., lag: _Optional[float] = ..., group_id: _Optional[str] = ...) -> None: ...

class Drop(_message.Message):
    __slots__ = ("key", "reason", "prompt_id", "difficulty", "tokens")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    DIFFICULTY_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    key: _rollout_pb2.RolloutKey
    reason: str
    prompt_id: str
    difficulty: float
    tokens: int
    def __init__(self, key: _Optional[_Union[_rollout_pb2.RolloutKey, _Mapping]] = ..., reason: _Optional[str] = ..., prompt_id: _Optional[str] = ..., difficulty: _Optional[float] = ..., tokens: _Optional[int] = ...) -> None: ...

class PromptShift(_message.Message):
    __slots__ = ("prompt_id", "mean_abs_logprob_change")
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABS_LOGPROB_CHANGE_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    mean_abs_logprob_change: float
    def __init__(self, prompt_id: _Optional[str] = ..., mean_abs_logprob_change: _Optional[float] = ...) -> None: ...

class TrainStep(_message.Message):
    __slots__ = ("epoch", "step", "version", "uses", "drops", "shifts", "metrics", "checkpoint_step", "waited_s", "computed_s", "ended_ms", "ended_requests")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    SHIFTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    WAITED_S_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    version: int
    uses: _containers.RepeatedCompositeFieldContainer[Use]
    drops: _containers.RepeatedCompositeFieldContainer[Drop]
    shifts: _containers.RepeatedCompositeFieldContainer[PromptShift]
    metrics: _containers.ScalarMap[str, float]
    checkpoint_step: int
    waited_s: float
    computed_s: float
    ended_ms: int
    ended_requests: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., version: _Optional[int] = ..., uses: _Optional[_Iterable[_Union[Use, _Mapping]]] = ..., drops: _Optional[_Iterable[_Union[Drop, _Mapping]]] = ..., shifts: _Optional[_Iterable[_Union[PromptShift, _Mapping]]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., checkpoint_step: _Optional[int] = ..., waited_s: _Optional[float] = ..., computed_s: _Optional[float] = ..., ended_ms: _Optional[int] = ..., ended_requests: _Optional[_Iterable[str]] = ...) -> None: ...

class DropNotice(_message.Message):
    __slots__ = ("epoch", "after_step", "drops")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AFTER_STEP_FIELD_NUMBER: _ClassVar[int]
    DROPS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    after_step: int
    drops: _containers.RepeatedCompositeFieldContainer[Drop]
    def __init__(self, epoch: _Optional[int] = ..., after_step: _Optional[int] = ..., drops: _Optional[_Iterable[_Union[Drop, _Mapping]]] = ...) -> None: ...

class Rewind(_message.Message):
    __slots__ = ("epoch", "to_step", "version")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TO_STEP_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    to_step: int
    version: int
    def __init__(self, epoch: _Optional[int] = ..., to_step: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class Offset(_message.Message):
    __slots__ = ("topic", "partition", "offset")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    topic: str
    partition: int
    offset: int
    def __init__(self, topic: _Optional[str] = ..., partition: _Optional[int] = ..., offset: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("epoch", "step", "version", "uri", "sha256", "offsets", "size_bytes", "serial", "ended")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    version: int
    uri: str
    sha256: bytes
    offsets: _containers.RepeatedCompositeFieldContainer[Offset]
    size_bytes: int
    serial: int
    ended: EndedCounts
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., version: _Optional[int] = ..., uri: _Optional[str] = ..., sha256: _Optional[bytes] = ..., offsets: _Optional[_Iterable[_Union[Offset, _Mapping]]] = ..., size_bytes: _Optional[int] = ..., serial: _Optional[int] = ..., ended: _Optional[_Union[EndedCounts, _Mapping]] = ...) -> None: ...

class EndedCounts(_message.Message):
    __slots__ = ("trained", "dropped", "expired", "failed")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class FailedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TRAINED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    trained: int
    dropped: _containers.ScalarMap[str, int]
    expired: int
    failed: _containers.ScalarMap[str, int]
    def __init__(self, trained: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., expired: _Optional[int] = ..., failed: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("request_id", "index", "attempt", "fate", "reason", "uses", "epoch", "step", "checkpoint_serial")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_SERIAL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    index: int
    attempt: int
    fate: Fate
    reason: str
    uses: int
    epoch: int
    step: int
    checkpoint_serial: int
    def __init__(self, request_id: _Optional[str] = ..., index: _Optional[int] = ..., attempt: _Optional[int] = ..., fate: _Optional[_Union[Fate, str]] = ..., reason: _Optional[str] = ..., uses: _Optional[int] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., checkpoint_serial: _Optional[int] = ...) -> None: ...
