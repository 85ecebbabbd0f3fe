"""IAM's policy simulator, which moto lacks: what the identity policies of a user or a role allow."""

import io
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qsl

from penumo_assets_tests.aws.emulator.rules import ApiError

_RESULT = (
    "<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>"
    "<EvalDecision>{decision}</EvalDecision></member>"
)
_ANSWER = (
    '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><SimulatePrincipalPolicyResult>'
    "<IsTruncated>false</IsTruncated><EvaluationResults>{results}</EvaluationResults></SimulatePrincipalPolicyResult>"
    "</SimulatePrincipalPolicyResponse>"
)


def simulation_of(environ: dict[str, Any]) -> dict[str, str] | None:
    """The fields of a request for a simulation; None for any other request, which stays as it was."""
    if environ.get("REQUEST_METHOD") != "POST" or "form-urlencoded" not in environ.get("CONTENT_TYPE", ""):
        return None
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    fields = dict(parse_qsl(body.decode("latin-1")))
    return fields if fields.get("Action") == "SimulatePrincipalPolicy" else None


def simulate(iam: Any, fields: dict[str, str]) -> bytes:
    """The answer as XML. Raises ApiError if there is no such principal."""
    statements = list(_statements(iam, fields["PolicySourceArn"]))
    actions, resources = _members(fields, "ActionNames"), _members(fields, "ResourceArns")
    names = _members(fields, "ContextEntries", ".ContextKeyName")
    context = dict(zip(names, _members(fields, "ContextEntries", ".ContextKeyValues.member.1"), strict=True))
    results = [
        _RESULT.format(action=action, resource=resource, decision=_decision(statements, action, resource, context))
        for action in actions
        for resource in resources
    ]
    return _ANSWER.format(results="".join(results)).encode()


def _members(fields: dict[str, str], name: str, rest: str = "") -> list[str]:
    keys = (f"{name}.member.{number}{rest}" for number in range(1, len(fields) + 1))
    return [fields[key] for key in keys if key in fields]


def _statements(iam: Any, principal: str) -> Iterator[dict[str, Any]]:
    details = iam.get_account_authorization_details(Filter=["User", "Role", "LocalManagedPolicy"])
    found = [item for item in (*details["UserDetailList"], *details["RoleDetailList"]) if item["Arn"] == principal]
    if not found:
        raise ApiError("NoSuchEntity", f"The principal {principal} cannot be found.", 404)
    for policy in (*found[0].get("UserPolicyList", []), *found[0].get("RolePolicyList", [])):
        yield from policy["PolicyDocument"]["Statement"]


def _decision(statements: list[dict[str, Any]], action: str, resource: str, context: dict[str, str]) -> str:
    effects = {item["Effect"] for item in statements if _matches(item, action, resource, context)}
    return "explicitDeny" if "Deny" in effects else "allowed" if effects else "implicitDeny"


def _matches(statement: dict[str, Any], action: str, resource: str, context: dict[str, str]) -> bool:
    conditions = [(key, wanted) for block in statement.get("Condition", {}).values() for key, wanted in block.items()]
    return (
        any(fnmatchcase(action.lower(), pattern.lower()) for pattern in _texts(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in _texts(statement["Resource"]))
        and all(any(fnmatchcase(context.get(key, ""), text) for text in _texts(wanted)) for key, wanted in conditions)
    )


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def error_of(error: ApiError) -> bytes:
    text = "<ErrorResponse><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error></ErrorResponse>"
    return text.format(error.code, error).encode()
