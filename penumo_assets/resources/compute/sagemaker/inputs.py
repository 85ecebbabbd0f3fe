"""What a job is given: its documents, and lists of exactly the objects that it reads.

They lie where no job may write, so that none can put others in their place.
"""

import json
from collections.abc import Mapping

from penumo_assets.resources.compute.sagemaker.start import CODE_INPUT, SHARE_INPUT
from penumo_assets.resources.compute.spec import JobInput, JobSpec
from penumo_assets.resources.storage.object_store import ObjectStore, to_json


def input_prefix(job_name: str) -> str:
    """Where a job's documents and manifests are."""
    return f"inputs/{job_name}"


def write_inputs(store: ObjectStore, spec: JobSpec, name: str, code: JobInput, hosts: int = 1) -> dict[str, str]:
    """Store the job's documents and, for each input, a manifest of its objects; manifest URIs by input.

    SageMaker gives every host a whole input, or some part of it that it chooses itself. So hosts that share out items
    fetch their own: each one's list is a document.
    """
    shared = {key: item for key, item in spec.inputs.items() if item.by_item and hosts > 1}
    documents = {**spec.documents, **({SHARE_INPUT: _shares(store, shared, hosts)} if shared else {})}
    inputs = {CODE_INPUT: code, **{key: item for key, item in spec.inputs.items() if key not in shared}}
    for document, files in documents.items():
        prefix = f"{input_prefix(name)}/{document}"
        for file, data in files.items():
            store.write(f"{prefix}/{file}", data)
        inputs[document] = JobInput(prefix, tuple(sorted(files)))
    manifests = {}
    for input_name, item in inputs.items():
        key = f"{input_prefix(name)}/{input_name}.manifest"
        content = [{"prefix": f"{store.uri(item.prefix)}/"}, *item.names]
        store.write(key, json.dumps(content).encode())
        manifests[input_name] = store.uri(key)
    return manifests


def _shares(store: ObjectStore, inputs: Mapping[str, JobInput], hosts: int) -> dict[str, bytes]:
    """The list of each host: for each input, where its objects are and their names."""
    return {
        f"{host}.json": to_json(
            {
                name: {"prefix": f"{store.uri(item.prefix)}/", "names": item.share_of(number, hosts)}
                for name, item in inputs.items()
            }
        )
        for number, host in enumerate(sorted(f"algo-{count}" for count in range(1, hosts + 1)))  # as the job sorts them
    }
