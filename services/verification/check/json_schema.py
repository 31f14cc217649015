"""Right when the answer is JSON that fits a schema, and has the expected values where some are given.

Source: JSON Schema 2020-12 by the `jsonschema` library; no reference leaves the schema (nothing is fetched).
Odd cases: values are compared with exact types (1 is not true, and not 1.0), as `services/verification/plain.py` does.
A schema's `pattern` can take exponential time on a hostile text: this check runs in a worker process and is ended at
`cpu_s`. With expected values, a fitting document that has only some of them is PARTIAL.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jsonschema_specifications
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification import json_answer, plain
from services.verification.finding import Finding, correct, partial, unparsable, wrong
from services.verification.spec import needed, settings
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class JsonSchema:
    """`spec.spec_json`: `schema`; `expected`, optional: an object whose members the answer must have, equal.

    >>> spec = prompt_pb2.CheckSpec(
    ...     spec_json='{"schema": {"type": "object", "required": ["a"]}, "expected": {"a": 1, "b": 2}}'
    ... )
    >>> JsonSchema()('{"a": 1, "b": 2, "c": 3}', spec).name, JsonSchema()('{"a": 1, "b": 3}', spec).accuracy
    ('CORRECT', 0.5)
    """

    tag: str = knob("answer", "the answer is what follows the last <tag>; without one, or empty: the whole text")
    tolerance: float = knob(0.0, "how far expected floats may lie apart", ge=0, le=1)
    cpu_s: float = knob(1.0, "CPU time of one answer", unit="s", gt=0, le=60)

    version: ClassVar[str] = "1"

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, PARTIAL, WRONG, or UNPARSABLE when it is no JSON. Raises `UserError` for a bad spec."""
        told = settings("json_schema", spec, ("schema", "expected"))
        validator = _validator(json.dumps(needed("json_schema", told, "schema", (dict, bool), "a JSON schema")))
        expected = told.get("expected", {})
        if not isinstance(expected, dict):
            raise UserError(f"json_schema: expected is {expected!r}; accepted: an object")
        try:
            said = json_answer.find(answer_text, self.tag)
        except ValueError as error:
            return unparsable("no_json", str(error))
        if fault := _fault(validator, said):
            return wrong(fault)
        return self._compare(said, expected)

    def _compare(self, said: Any, expected: dict[str, Any]) -> Finding:
        missed = [
            key
            for key, value in expected.items()
            if not isinstance(said, dict) or key not in said or not plain.same(said[key], value, self.tolerance)
        ]
        if not missed:
            return correct("it fits the schema" + (", and has the expected values" if expected else ""))
        evidence = f"it fits the schema; not as expected: {', '.join(missed)}"
        share = 1 - len(missed) / len(expected)
        return partial(share, evidence, (("values", share),)) if share else wrong(evidence, (("values", 0.0),))


@lru_cache(maxsize=256)
def _validator(schema_json: str) -> Any:
    schema = json.loads(schema_json)
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise UserError(f"json_schema: schema is refused ({error.message[:200]}); accepted: a JSON schema") from error
    return kind(schema, registry=jsonschema_specifications.REGISTRY)


def _fault(validator: Any, said: Any) -> str:
    try:
        error = best_match(validator.iter_errors(said))
    except Unresolvable as unknown:
        raise UserError(f"json_schema: schema refers to {unknown.ref!r}; accepted: references inside it") from unknown
    return f"{error.json_path}: {error.message}"[:500] if error else ""
