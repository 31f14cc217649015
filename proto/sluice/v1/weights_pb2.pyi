from sluice.v1 import prompt_pb2 as _prompt_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WeightCodec(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHT_CODEC_UNSPECIFIED: _ClassVar[WeightCodec]
    WEIGHT_CODEC_DENSE: _ClassVar[WeightCodec]
    WEIGHT_CODEC_DENSE_ZSTD: _ClassVar[WeightCodec]
    WEIGHT_CODEC_SPARSE_GAP16_ZSTD: _ClassVar[WeightCodec]
WEIGHT_CODEC_UNSPECIFIED: WeightCodec
WEIGHT_CODEC_DENSE: WeightCodec
WEIGHT_CODEC_DENSE_ZSTD: WeightCodec
WEIGHT_CODEC_SPARSE_GAP16_ZSTD: WeightCodec

class WeightChunk(_message.Message):
    __slots__ = ("policy_id", "version", "epoch", "tensor", "dtype", "shape", "first_row", "rows", "codec", "data", "changed", "digest")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TENSOR_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    FIRST_ROW_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    version: int
    epoch: int
    tensor: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    first_row: int
    rows: int
    codec: WeightCodec
    data: bytes
    changed: int
    digest: bytes
    def __init__(self, policy_id: _Optional[str] = ..., version: _Optional[int] = ..., epoch: _Optional[int] = ..., tensor: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., first_row: _Optional[int] = ..., rows: _Optional[int] = ..., codec: _Optional[_Union[WeightCodec, str]] = ..., data: _Optional[bytes] = ..., changed: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class WeightPart(_message.Message):
    __slots__ = ("version", "base_version", "anchor", "topic", "partition", "first_offset", "last_offset", "chunks", "size_bytes", "result_sha256", "density", "claim")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    LAST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_SHA256_FIELD_NUMBER: _ClassVar[int]
    DENSITY_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    version: int
    base_version: int
    anchor: bool
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    chunks: int
    size_bytes: int
    result_sha256: bytes
    density: float
    claim: _prompt_pb2.Claim
    def __init__(self, version: _Optional[int] = ..., base_version: _Optional[int] = ..., anchor: bool = ..., topic: _Optional[str] = ..., partition: _Optional[int] = ..., first_offset: _Optional[int] = ..., last_offset: _Optional[int] = ..., chunks: _Optional[int] = ..., size_bytes: _Optional[int] = ..., result_sha256: _Optional[bytes] = ..., density: _Optional[float] = ..., claim: _Optional[_Union[_prompt_pb2.Claim, _Mapping]] = ...) -> None: ...

class TensorSpec(_message.Message):
    __slots__ = ("name", "dtype", "shape", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    digest: bytes
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class WeightManifest(_message.Message):
    __slots__ = ("policy_id", "version", "epoch", "step", "parts", "tensors", "published_ms", "dense_bytes", "base_sha256")
    POLICY_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_MS_FIELD_NUMBER: _ClassVar[int]
    DENSE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BASE_SHA256_FIELD_NUMBER: _ClassVar[int]
    policy_id: str
    version: int
    epoch: int
    step: int
    parts: _containers.RepeatedCompositeFieldContainer[WeightPart]
    tensors: _containers.RepeatedCompositeFieldContainer[TensorSpec]
    published_ms: int
    dense_bytes: int
    base_sha256: bytes
    def __init__(self, policy_id: _Optional[str] = ..., version: _Optional[int] = ..., epoch: _Optional[int] = ..., step: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[WeightPart, _Mapping]]] = ..., tensors: _Optional[_Iterable[_Union[TensorSpec, _Mapping]]] = ..., published_ms: _Optional[int] = ..., dense_bytes: _Optional[int] = ..., base_sha256: _Optional[bytes] = ...) -> None: ...
