from sluice.v1 import prompt_pb2 as _prompt_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TokenKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TOKEN_KIND_UNSPECIFIED: _ClassVar[TokenKind]
    TOKEN_KIND_POLICY: _ClassVar[TokenKind]
    TOKEN_KIND_INJECTED: _ClassVar[TokenKind]
    TOKEN_KIND_ENVIRONMENT: _ClassVar[TokenKind]
    TOKEN_KIND_THOUGHT: _ClassVar[TokenKind]
    TOKEN_KIND_ACTION: _ClassVar[TokenKind]
    TOKEN_KIND_BLUEPRINT: _ClassVar[TokenKind]

class Ending(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENDING_UNSPECIFIED: _ClassVar[Ending]
    ENDING_STOP: _ClassVar[Ending]
    ENDING_LENGTH: _ClassVar[Ending]
    ENDING_ABORTED: _ClassVar[Ending]
    ENDING_EXPIRED: _ClassVar[Ending]
    ENDING_FAILED: _ClassVar[Ending]

class VerdictOutcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_OUTCOME_UNSPECIFIED: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_CORRECT: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_WRONG: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_PARTIAL: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_UNPARSABLE: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_TIMEOUT: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_VIOLATION: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_INFRA_ERROR: _ClassVar[VerdictOutcome]
    VERDICT_OUTCOME_NOT_RUN: _ClassVar[VerdictOutcome]
TOKEN_KIND_UNSPECIFIED: TokenKind
TOKEN_KIND_POLICY: TokenKind
TOKEN_KIND_INJECTED: TokenKind
TOKEN_KIND_ENVIRONMENT: TokenKind
TOKEN_KIND_THOUGHT: TokenKind
TOKEN_KIND_ACTION: TokenKind
TOKEN_KIND_BLUEPRINT: TokenKind
ENDING_UNSPECIFIED: Ending
ENDING_STOP: Ending
ENDING_LENGTH: Ending
ENDING_ABORTED: Ending
ENDING_EXPIRED: Ending
ENDING_FAILED: Ending
VERDICT_OUTCOME_UNSPECIFIED: VerdictOutcome
VERDICT_OUTCOME_CORRECT: VerdictOutcome
VERDICT_OUTCOME_WRONG: VerdictOutcome
VERDICT_OUTCOME_PARTIAL: VerdictOutcome
VERDICT_OUTCOME_UNPARSABLE: VerdictOutcome
VERDICT_OUTCOME_TIMEOUT: VerdictOutcome
VERDICT_OUTCOME_VIOLATION: VerdictOutcome
VERDICT_OUTCOME_INFRA_ERROR: VerdictOutcome
VERDICT_OUTCOME_NOT_RUN: VerdictOutcome

class RolloutKey(_message.Message):
    __slots__ = ("request_id", "index", "attempt")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    index: int
    attempt: int
    def __init__(self, request_id: _Optional[str] = ..., index: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("first_token", "policy_id", "version", "temperature")
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    first_token: int
    policy_id: str
    version: int
    temperature: float
    def __init__(self, first_token: _Optional[int] = ..., policy_id: _Optional[str] = ..., version: _Optional[int] = ..., temperature: _Optional[float] = ...) -> None: ...

class SideArray(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Injection(_message.Message):
    __slots__ = ("guidance", "first_token", "end_token", "leak_check")
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    END_TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEAK_CHECK_FIELD_NUMBER: _ClassVar[int]
    guidance: _prompt_pb2.Guidance
    first_token: int
    end_token: int
    leak_check: str
    def __init__(self, guidance: _Optional[_Union[_prompt_pb2.Guidance, _Mapping]] = ..., first_token: _Optional[int] = ..., end_token: _Optional[int] = ..., leak_check: _Optional[str] = ...) -> None: ...

class CallPlace(_message.Message):
    __slots__ = ("agent_id", "role", "player", "turn", "parent_call", "node_id", "parent_node_id", "level", "anchor_hash", "anchor_rule", "next_anchor_hash", "action", "action_valid", "trainable", "step_reward", "blueprint_id", "value_estimates")
    class ValueEstimatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PLAYER_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    PARENT_CALL_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_NODE_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_HASH_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_RULE_FIELD_NUMBER: _ClassVar[int]
    NEXT_ANCHOR_HASH_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    ACTION_VALID_FIELD_NUMBER: _ClassVar[int]
    TRAINABLE_FIELD_NUMBER: _ClassVar[int]
    STEP_REWARD_FIELD_NUMBER: _ClassVar[int]
    BLUEPRINT_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_ESTIMATES_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    role: str
    player: int
    turn: int
    parent_call: int
    node_id: str
    parent_node_id: str
    level: str
    anchor_hash: str
    anchor_rule: str
    next_anchor_hash: str
    action: str
    action_valid: bool
    trainable: bool
    step_reward: float
    blueprint_id: str
    value_estimates: _containers.ScalarMap[str, float]
    def __init__(self, agent_id: _Optional[str] = ..., role: _Optional[str] = ..., player: _Optional[int] = ..., turn: _Optional[int] = ..., parent_call: _Optional[int] = ..., node_id: _Optional[str] = ..., parent_node_id: _Optional[str] = ..., level: _Optional[str] = ..., anchor_hash: _Optional[str] = ..., anchor_rule: _Optional[str] = ..., next_anchor_hash: _Optional[str] = ..., action: _Optional[str] = ..., action_valid: bool = ..., trainable: bool = ..., step_reward: _Optional[float] = ..., blueprint_id: _Optional[str] = ..., value_estimates: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("kept_tokens", "context_tokens", "tokens", "logprobs", "token_kinds", "spans", "ending", "text", "injections", "place", "side")
    KEPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TOKEN_KINDS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    INJECTIONS_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    SIDE_FIELD_NUMBER: _ClassVar[int]
    kept_tokens: int
    context_tokens: _containers.RepeatedScalarFieldContainer[int]
    tokens: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    token_kinds: _containers.RepeatedScalarFieldContainer[TokenKind]
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    ending: Ending
    text: str
    injections: _containers.RepeatedCompositeFieldContainer[Injection]
    place: CallPlace
    side: _containers.RepeatedCompositeFieldContainer[SideArray]
    def __init__(self, kept_tokens: _Optional[int] = ..., context_tokens: _Optional[_Iterable[int]] = ..., tokens: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., token_kinds: _Optional[_Iterable[_Union[TokenKind, str]]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ..., ending: _Optional[_Union[Ending, str]] = ..., text: _Optional[str] = ..., injections: _Optional[_Iterable[_Union[Injection, _Mapping]]] = ..., place: _Optional[_Union[CallPlace, _Mapping]] = ..., side: _Optional[_Iterable[_Union[SideArray, _Mapping]]] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queued_s", "generated_s", "ended_ms")
    QUEUED_S_FIELD_NUMBER: _ClassVar[int]
    GENERATED_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    queued_s: float
    generated_s: float
    ended_ms: int
    def __init__(self, queued_s: _Optional[float] = ..., generated_s: _Optional[float] = ..., ended_ms: _Optional[int] = ...) -> None: ...

class Rollout(_message.Message):
    __slots__ = ("key", "sha256", "group_id", "prompt_id", "prompt_digest", "calls", "ending", "reason", "purpose", "belief", "worker_id", "engine", "kv_policy", "timings", "final", "request_n", "domain", "family", "replaces", "failed_checks")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    BELIEF_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    KV_POLICY_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    REQUEST_N_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    FAILED_CHECKS_FIELD_NUMBER: _ClassVar[int]
    key: RolloutKey
    sha256: bytes
    group_id: str
    prompt_id: str
    prompt_digest: bytes
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    ending: Ending
    reason: str
    purpose: _prompt_pb2.Purpose
    belief: _prompt_pb2.Belief
    worker_id: str
    engine: str
    kv_policy: str
    timings: Timings
    final: bool
    request_n: int
    domain: str
    family: str
    replaces: str
    failed_checks: int
    def __init__(self, key: _Optional[_Union[RolloutKey, _Mapping]] = ..., sha256: _Optional[bytes] = ..., group_id: _Optional[str] = ..., prompt_id: _Optional[str] = ..., prompt_digest: _Optional[bytes] = ..., calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ..., ending: _Optional[_Union[Ending, str]] = ..., reason: _Optional[str] = ..., purpose: _Optional[_Union[_prompt_pb2.Purpose, str]] = ..., belief: _Optional[_Union[_prompt_pb2.Belief, _Mapping]] = ..., worker_id: _Optional[str] = ..., engine: _Optional[str] = ..., kv_policy: _Optional[str] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., final: bool = ..., request_n: _Optional[int] = ..., domain: _Optional[str] = ..., family: _Optional[str] = ..., replaces: _Optional[str] = ..., failed_checks: _Optional[int] = ...) -> None: ...

class Reward(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("key", "rollout_sha256", "prompt_id", "group_id", "outcome", "accuracy", "rewards", "tests", "evidence", "checker", "checker_version", "wall_s", "cpu_s", "reason", "attempt", "min_version", "max_version", "purpose", "hidden_outcome", "tokens", "domain", "family", "hidden_checker", "hidden_evidence")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_SHA256_FIELD_NUMBER: _ClassVar[int]
    PROMPT_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TESTS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    CHECKER_FIELD_NUMBER: _ClassVar[int]
    CHECKER_VERSION_FIELD_NUMBER: _ClassVar[int]
    WALL_S_FIELD_NUMBER: _ClassVar[int]
    CPU_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAX_VERSION_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_CHECKER_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    key: RolloutKey
    rollout_sha256: bytes
    prompt_id: str
    group_id: str
    outcome: VerdictOutcome
    accuracy: float
    rewards: _containers.RepeatedCompositeFieldContainer[Reward]
    tests: _containers.RepeatedScalarFieldContainer[bool]
    evidence: str
    checker: str
    checker_version: str
    wall_s: float
    cpu_s: float
    reason: str
    attempt: int
    min_version: int
    max_version: int
    purpose: _prompt_pb2.Purpose
    hidden_outcome: VerdictOutcome
    tokens: int
    domain: str
    family: str
    hidden_checker: str
    hidden_evidence: str
    def __init__(self, key: _Optional[_Union[RolloutKey, _Mapping]] = ..., rollout_sha256: _Optional[bytes] = ..., prompt_id: _Optional[str] = ..., group_id: _Optional[str] = ..., outcome: _Optional[_Union[VerdictOutcome, str]] = ..., accuracy: _Optional[float] = ..., rewards: _Optional[_Iterable[_Union[Reward, _Mapping]]] = ..., tests: _Optional[_Iterable[bool]] = ..., evidence: _Optional[str] = ..., checker: _Optional[str] = ..., checker_version: _Optional[str] = ..., wall_s: _Optional[float] = ..., cpu_s: _Optional[float] = ..., reason: _Optional[str] = ..., attempt: _Optional[int] = ..., min_version: _Optional[int] = ..., max_version: _Optional[int] = ..., purpose: _Optional[_Union[_prompt_pb2.Purpose, str]] = ..., hidden_outcome: _Optional[_Union[VerdictOutcome, str]] = ..., tokens: _Optional[int] = ..., domain: _Optional[str] = ..., family: _Optional[str] = ..., hidden_checker: _Optional[str] = ..., hidden_evidence: _Optional[str] = ...) -> None: ...
