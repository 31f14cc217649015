from sluice.v1 import training_pb2 as _training_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PosteriorChange(_message.Message):
    __slots__ = ("step", "accuracy", "mean_abs_logprob_change", "lag")
    STEP_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    MEAN_ABS_LOGPROB_CHANGE_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    step: int
    accuracy: float
    mean_abs_logprob_change: float
    lag: int
    def __init__(self, step: _Optional[int] = ..., accuracy: _Optional[float] = ..., mean_abs_logprob_change: _Optional[float] = ..., lag: _Optional[int] = ...) -> None: ...

class PosteriorState(_message.Message):
    __slots__ = ("prompt_id", "estimator", "statistics", "decayed_step", "visits", "last_version", "recent", "applied", "epoch", "step", "pending", "base_statistics", "base_decayed_step", "last_step", "tally", "turns", "turn_mean", "turn_squares", "turn_sum", "turn_outcomes", "diversity", "outcomes")
    class StatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class BaseStatisticsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    DECAYED_STEP_FIELD_NUMBER: _ClassVar[int]
    VISITS_FIELD_NUMBER: _ClassVar[int]
    LAST_VERSION_FIELD_NUMBER: _ClassVar[int]
    RECENT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    BASE_STATISTICS_FIELD_NUMBER: _ClassVar[int]
    BASE_DECAYED_STEP_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    TALLY_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    TURN_MEAN_FIELD_NUMBER: _ClassVar[int]
    TURN_SQUARES_FIELD_NUMBER: _ClassVar[int]
    TURN_SUM_FIELD_NUMBER: _ClassVar[int]
    TURN_OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    estimator: str
    statistics: _containers.ScalarMap[str, float]
    decayed_step: int
    visits: int
    last_version: int
    recent: _containers.RepeatedScalarFieldContainer[float]
    applied: _containers.RepeatedCompositeFieldContainer[_training_pb2.Offset]
    epoch: int
    step: int
    pending: _containers.RepeatedCompositeFieldContainer[PosteriorChange]
    base_statistics: _containers.ScalarMap[str, float]
    base_decayed_step: int
    last_step: int
    tally: float
    turns: int
    turn_mean: float
    turn_squares: float
    turn_sum: float
    turn_outcomes: int
    diversity: float
    outcomes: int
    def __init__(self, prompt_id: _Optional[str] = ..., estimator: _Optional[str] = ..., statistics: _Optional[_Mapping[str, float]] = ..., decayed_step: _Optional[int] = ..., visits: _Optional[int] = ..., last_version: _Optional[int] = ..., recent: _Optional[_Iterable[float]] = ..., applied: _Optional[_Iterable[_Union[_training_pb2.Offset, _Mapping]]] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., pending: _Optional[_Iterable[_Union[PosteriorChange, _Mapping]]] = ..., base_statistics: _Optional[_Mapping[str, float]] = ..., base_decayed_step: _Optional[int] = ..., last_step: _Optional[int] = ..., tally: _Optional[float] = ..., turns: _Optional[int] = ..., turn_mean: _Optional[float] = ..., turn_squares: _Optional[float] = ..., turn_sum: _Optional[float] = ..., turn_outcomes: _Optional[int] = ..., diversity: _Optional[float] = ..., outcomes: _Optional[int] = ...) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("request_id", "places", "ended_at_step", "epoch", "prompt_id", "deadline_ms", "first_index")
    class EndedAtStepEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: int
        def __init__(self, key: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_STEP_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    places: int
    ended_at_step: _containers.ScalarMap[int, int]
    epoch: int
    prompt_id: str
    deadline_ms: int
    first_index: int
    def __init__(self, request_id: _Optional[str] = ..., places: _Optional[int] = ..., ended_at_step: _Optional[_Mapping[int, int]] = ..., epoch: _Optional[int] = ..., prompt_id: _Optional[str] = ..., deadline_ms: _Optional[int] = ..., first_index: _Optional[int] = ...) -> None: ...

class GateState(_message.Message):
    __slots__ = ("issued_requests", "issued_rollouts", "open", "rng_json", "applied", "epoch", "step", "drawn", "version", "checkpoint_step", "outcomes", "asked")
    ISSUED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ISSUED_ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RNG_JSON_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DRAWN_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ASKED_FIELD_NUMBER: _ClassVar[int]
    issued_requests: int
    issued_rollouts: int
    open: _containers.RepeatedCompositeFieldContainer[OpenRequest]
    rng_json: str
    applied: _containers.RepeatedCompositeFieldContainer[_training_pb2.Offset]
    epoch: int
    step: int
    drawn: int
    version: int
    checkpoint_step: int
    outcomes: int
    asked: int
    def __init__(self, issued_requests: _Optional[int] = ..., issued_rollouts: _Optional[int] = ..., open: _Optional[_Iterable[_Union[OpenRequest, _Mapping]]] = ..., rng_json: _Optional[str] = ..., applied: _Optional[_Iterable[_Union[_training_pb2.Offset, _Mapping]]] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., drawn: _Optional[int] = ..., version: _Optional[int] = ..., checkpoint_step: _Optional[int] = ..., outcomes: _Optional[int] = ..., asked: _Optional[int] = ...) -> None: ...
