"""May the caller and the job role do what the policies of docs/aws allow? Asked of IAM's simulator, action by action.

The policies are the list: every statement is asked about with this installation's names in its resources, and with what
its conditions want.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Template
from typing import Any

from penumo_assets.resources.compute.sagemaker.settings import SageMakerSettings
from penumo_assets.sensors.alerts import TOPIC_VARIABLE
from penumo_assets.sensors.events import QUEUE_VARIABLE

FOLDER = Path(__file__).parents[1] / "docs" / "aws"
SAMPLE = "check-aws"  # stands for any name
# What the orchestrator's host does and its programs do not.
_OF_THE_HOST = ("GetTheOrchestratorsImage", "LogInToTheRegistry")
# Statements that only some installations need, and the variable that says so.
_SERVING = "PENUMO_INFERENCE_IMAGE"
_NEEDED_WITH = {
    "RegisterModels": _SERVING,
    "ServeTheChampion": _SERVING,
    "TakeTheBucketsEvents": QUEUE_VARIABLE,
    "TellOfFailedRuns": TOPIC_VARIABLE,
}
_LOGS_OF_SERVING = re.compile("/aws/sagemaker/(TransformJobs|Endpoints)")


def principal_of(iam: Any, arn: str) -> str:
    """Whose policies decide for a caller: the role's, if it has assumed one."""
    session = arn.partition(":assumed-role/")[2]
    return iam.get_role(RoleName=session.partition("/")[0])["Role"]["Arn"] if session else arn


def refused(iam: Any, principal: str, statements: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for each statement of which IAM would refuse the principal something."""
    partition = principal.split(":")[1]
    for statement in statements:
        lacking: dict[str, list[str]] = {}
        for resource, actions in _questions(statement):
            answer = iam.simulate_principal_policy(
                PolicySourceArn=principal,
                ActionNames=actions,
                ResourceArns=[resource.replace("arn:aws:", f"arn:{partition}:", 1)],
                ContextEntries=list(_context(statement.get("Condition", {}))),
            )
            for result in answer["EvaluationResults"]:
                if result["EvalDecision"] != "allowed":
                    lacking.setdefault(result["EvalActionName"], []).append(resource)
        if lacking:
            what, where = (
                sorted(lacking),
                sorted({resource for resources in lacking.values() for resource in resources}),
            )
            found_in = f"statement {statement['Sid']} of docs/aws"
            yield f"{principal} may not {', '.join(what)} on {', '.join(where)} ({found_in})"


def policy(name: str, names: dict[str, str], resources: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The statements of a policy of docs/aws that this installation needs, with its ``names`` filled in.

    ``resources`` replaces those of a statement; one that is left with none is not needed.
    """
    text = Template((FOLDER / name).read_text(encoding="utf-8")).substitute(names)
    found = []
    for statement in json.loads(text)["Statement"]:
        sid = statement["Sid"]
        given = resources.get(sid, statement["Resource"])
        arns = [arn for arn in ([given] if isinstance(given, str) else given) if arn]
        if not os.environ.get(_SERVING):
            arns = [arn for arn in arns if not _LOGS_OF_SERVING.search(arn)]
        unused = sid in _NEEDED_WITH and not os.environ.get(_NEEDED_WITH[sid])
        if arns and not unused and not (name == "iam_orchestrator.json" and sid in _OF_THE_HOST):
            found.append(statement | {"Resource": arns})
    return found


def job_resources(settings: SageMakerSettings, images: Iterable[str]) -> dict[str, list[str]]:
    """What the job role's statements are about here: the ``images`` by their ARNs, and the settings' secrets."""
    return {"GetTheContainerImages": list(images), "ReadItsSecrets": list(settings.secret_arns.values())}


def orchestrator_resources(settings: SageMakerSettings, account: str, region: str) -> dict[str, list[str]]:
    """What the orchestrator's statements are about here: what has the jobs' prefix, the queue, the topic."""

    def named(*kinds: str) -> list[str]:
        return [f"arn:aws:sagemaker:{region}:{account}:{kind}/{settings.job_name_prefix}-*" for kind in kinds]

    queue = os.environ.get(QUEUE_VARIABLE, "").rsplit("/", 1)[-1]
    return {
        "RunJobs": named("processing-job", "training-job", "hyper-parameter-tuning-job"),
        "ServeTheChampion": named("model", "endpoint-config", "endpoint", "transform-job"),
        "TakeTheBucketsEvents": [f"arn:aws:sqs:{region}:{account}:{queue}"],
        "TellOfFailedRuns": [os.environ.get(TOPIC_VARIABLE, "")],
    }


def _questions(statement: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each resource with the actions that are about it."""
    given = statement["Action"]
    actions = [given] if isinstance(given, str) else given
    for resource in statement["Resource"]:
        fitting = [action for action in actions if resource in _fitting(action, statement["Resource"])]
        if fitting:
            yield resource.replace("*", SAMPLE) if resource != "*" else resource, fitting


def _fitting(action: str, resources: list[str]) -> list[str]:
    """Of several kinds of resources that which the action names: TrainingJob in CreateTrainingJob; else all."""
    kinds = {resource: re.sub(r"[^a-z]", "", resource.split(":")[-1].partition("/")[0]) for resource in resources}
    named = {kind for kind in kinds.values() if kind and kind in action.lower()}
    longest = max(named, key=len, default=None)
    return [resource for resource, kind in kinds.items() if longest in (None, kind)]


def _context(condition: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Entries that satisfy a statement's condition."""
    for operator, wanted in condition.items():
        for key, value in wanted.items():
            text = value if isinstance(value, str) else value[0]
            kind = "boolean" if operator == "Bool" else "string"
            values = [text.replace("*", SAMPLE)]
            yield {"ContextKeyName": key, "ContextKeyValues": values, "ContextKeyType": kind}
