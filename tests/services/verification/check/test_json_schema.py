import json

import pytest

from pipeline.errors import UserError
from services.verification.check.json_schema import JsonSchema
from sluice.v1.prompt_pb2 import CheckSpec

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}}, "required": ["n"]}


def judge(text, schema=SCHEMA, expected=None, **knobs):
    spec = {"schema": schema} | ({"expected": expected} if expected is not None else {})
    return JsonSchema(**knobs)(text, CheckSpec(spec_json=json.dumps(spec)))


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"n": 1}', "CORRECT"),
        ('text\n```json\n{"n": 1}\n```', "CORRECT"),
        ('<answer>{"n": 1}</answer>', "CORRECT"),
        ('{"n": "1"}', "WRONG"),
        ('{"s": "x"}', "WRONG"),
        ("[]", "WRONG"),
        ("", "UNPARSABLE"),
        ("{'n': 1}", "UNPARSABLE"),
        ('{"n": 1} and more', "UNPARSABLE"),
        ("[" * 100_000, "UNPARSABLE"),
        ("[" * 100 + "]" * 100, "UNPARSABLE"),
    ],
)
def test_json_that_fits_is_correct(text, outcome):
    assert judge(text).name == outcome


def test_expected_members_are_compared_with_exact_types():
    assert judge('{"n": 1, "s": "x"}', expected={"n": 1, "s": "x"}).name == "CORRECT"
    assert judge('{"n": 1, "s": "y"}', expected={"n": 1, "s": "x"}).accuracy == 0.5
    assert judge('{"n": 2}', expected={"n": 1}).name == "WRONG"
    assert judge("true", schema=True, expected={"n": 1}).name == "WRONG"
    assert judge('{"n": true}', schema={}, expected={"n": 1}).name == "WRONG"


def test_nothing_is_fetched_for_a_reference():
    with pytest.raises(UserError, match="accepted: references inside it"):
        judge('{"n": 1}', schema={"$ref": "http://localhost:9/schema.json"})
    assert judge("3", schema={"$defs": {"i": {"type": "integer"}}, "$ref": "#/$defs/i"}).name == "CORRECT"


@pytest.mark.parametrize("schema", [{"type": "no such type"}, 3, None])
def test_a_schema_that_is_none_is_a_users_error(schema):
    with pytest.raises(UserError, match="json_schema: schema"):
        judge("1", schema=schema)
