from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Purpose(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PURPOSE_UNSPECIFIED: _ClassVar[Purpose]
    PURPOSE_TRAIN: _ClassVar[Purpose]
    PURPOSE_EVALUATE: _ClassVar[Purpose]
PURPOSE_UNSPECIFIED: Purpose
PURPOSE_TRAIN: Purpose
PURPOSE_EVALUATE: Purpose

class Part(_message.Message):
    __slots__ = ("text", "image")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: Media
    def __init__(self, text: _Optional[str] = ..., image: _Optional[_Union[Media, _Mapping]] = ...) -> None: ...

class Media(_message.Message):
    __slots__ = ("media_type", "data", "claim")
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    media_type: str
    data: bytes
    claim: Claim
    def __init__(self, media_type: _Optional[str] = ..., data: _Optional[bytes] = ..., claim: _Optional[_Union[Claim, _Mapping]] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("uri", "sha256", "size_bytes")
    URI_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    uri: str
    sha256: bytes
    size_bytes: int
    def __init__(self, uri: _Optional[str] = ..., sha256: _Optional[bytes] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "parts")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    role: str
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, role: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class CheckSpec(_message.Message):
    __slots__ = ("check", "answer", "spec_json")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SPEC_JSON_FIELD_NUMBER: _ClassVar[int]
    check: str
    answer: str
    spec_json: str
    def __init__(self, check: _Optional[str] = ..., answer: _Optional[str] = ..., spec_json: _Optional[str] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("prompt_id", "digest", "messages", "check", "domain", "family", "reference_solution", "hints", "semantic_class_id", "split", "hidden")
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_SOLUTION_FIELD_NUMBER: _ClassVar[int]
    HINTS_FIELD_NUMBER: _ClassVar[int]
    SEMANTIC_CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    prompt_id: str
    digest: bytes
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    check: CheckSpec
    domain: str
    family: str
    reference_solution: str
    hints: _containers.RepeatedScalarFieldContainer[str]
    semantic_class_id: str
    split: str
    hidden: CheckSpec
    def __init__(self, prompt_id: _Optional[str] = ..., digest: _Optional[bytes] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., check: _Optional[_Union[CheckSpec, _Mapping]] = ..., domain: _Optional[str] = ..., family: _Optional[str] = ..., reference_solution: _Optional[str] = ..., hints: _Optional[_Iterable[str]] = ..., semantic_class_id: _Optional[str] = ..., split: _Optional[str] = ..., hidden: _Optional[_Union[CheckSpec, _Mapping]] = ...) -> None: ...

class SamplingParams(_message.Message):
    __slots__ = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "min_tokens")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    seed: int
    min_tokens: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., min_p: _Optional[float] = ..., max_tokens: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., seed: _Optional[int] = ..., min_tokens: _Optional[int] = ...) -> None: ...

class Guidance(_message.Message):
    __slots__ = ("kind", "level", "text", "source_id", "policy_version")
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    kind: str
    level: int
    text: str
    source_id: str
    policy_version: int
    def __init__(self, kind: _Optional[str] = ..., level: _Optional[int] = ..., text: _Optional[str] = ..., source_id: _Optional[str] = ..., policy_version: _Optional[int] = ...) -> None: ...

class Belief(_message.Message):
    __slots__ = ("mean", "effective_n", "as_of_step")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_N_FIELD_NUMBER: _ClassVar[int]
    AS_OF_STEP_FIELD_NUMBER: _ClassVar[int]
    mean: float
    effective_n: float
    as_of_step: int
    def __init__(self, mean: _Optional[float] = ..., effective_n: _Optional[float] = ..., as_of_step: _Optional[int] = ...) -> None: ...

class RolloutRequest(_message.Message):
    __slots__ = ("request_id", "group_id", "final", "attempt", "prompt_id", "prompt_digest", "messages", "n", "first_index", "sampling", "guidance", "belief", "version_at_issue", "deadline_ms", "purpose", "not_before_ms", "redrives", "domain", "family", "oldest_version")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    BELIEF_FIELD_NUMBER: _ClassVar[int]
    VERSION_AT_ISSUE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    REDRIVES_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    OLDEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    group_id: str
    final: bool
    attempt: int
    prompt_id: str
    prompt_digest: bytes
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    n: int
    first_index: int
    sampling: SamplingParams
    guidance: _containers.RepeatedCompositeFieldContainer[Guidance]
    belief: Belief
    version_at_issue: int
    deadline_ms: int
    purpose: Purpose
    not_before_ms: int
    redrives: str
    domain: str
    family: str
    oldest_version: int
    def __init__(self, request_id: _Optional[str] = ..., group_id: _Optional[str] = ..., final: bool = ..., attempt: _Optional[int] = ..., prompt_id: _Optional[str] = ..., prompt_digest: _Optional[bytes] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., n: _Optional[int] = ..., first_index: _Optional[int] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., guidance: _Optional[_Iterable[_Union[Guidance, _Mapping]]] = ..., belief: _Optional[_Union[Belief, _Mapping]] = ..., version_at_issue: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., purpose: _Optional[_Union[Purpose, str]] = ..., not_before_ms: _Optional[int] = ..., redrives: _Optional[str] = ..., domain: _Optional[str] = ..., family: _Optional[str] = ..., oldest_version: _Optional[int] = ...) -> None: ...
