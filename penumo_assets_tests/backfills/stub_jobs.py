"""The application with jobs that take no time: `StubJobRunner` keeps the contract and draws what a job makes."""

import hashlib
from typing import Any

import cv2
import numpy as np
from dagster import AssetExecutionContext, EnvVar

from penumo_assets.definitions import build_definitions
from penumo_assets.imaging.npz_writer import npz_bytes
from penumo_assets.jobs.manifest import STAGES, StageOutput, dump_rows
from penumo_assets.jobs.prepare.work import WorkItem, parse_item, work_lines
from penumo_assets.resources.compute.runner import JobRunner
from penumo_assets.resources.compute.spec import JobResult, JobSpec
from penumo_assets.resources.storage.root import Storage


class StubJobRunner(JobRunner):
    """Prepares cohorts in this process: a PNG becomes a small picture in every stage, all else is rejected."""

    def run(self, context: AssetExecutionContext, spec: JobSpec) -> JobResult:
        assert (spec.program, spec.kind) == ("prepare", "processing")
        name = spec.job_name("stub", 1)
        prefix = f"jobs/{name}/output"
        outputs: dict[str, list[str]] = {output: [] for output in spec.outputs}
        rows = []
        for line in work_lines(spec.documents["work"]["work.jsonl"]):
            item = parse_item(line)
            data = self.storage.store.read(f"landing/{spec.partition}/{item.landed}")
            if data.startswith(b"\x89PNG"):
                item.row.status, item.row.stage, item.row.code, item.row.reason = "accepted", None, None, None
                for stage, file, content in _outputs(item):
                    self.storage.store.write(f"{prefix}/{stage}/{file}", content)
                    outputs[stage].append(file)
                    item.row.stages[stage] = StageOutput(
                        key=f"{stage}/{file}",
                        sha256=hashlib.sha256(content).hexdigest(),
                        fingerprint=item.fingerprints[stage],
                    )
            else:
                item.row.reject("raw", "not_an_image", "neither DICOM, PNG nor JPEG", item.fingerprints["raw"])
            rows.append(item.row)
        self.storage.store.write(f"{prefix}/rows/rows-algo-1.jsonl", dump_rows(rows))
        outputs["rows"].append("rows-algo-1.jsonl")
        values = {"images": len(rows), "stage_seconds": dict.fromkeys((*STAGES, "segment"), 0.0)}
        names = {output: tuple(sorted(files)) for output, files in outputs.items()}
        return JobResult(name, values, prefix, names, {"job_name": name, "job_seconds": 0.0})

    def discard(self, job_name: str) -> None:
        self.storage.store.delete_folder(f"jobs/{job_name}")


def _outputs(item: WorkItem) -> list[tuple[str, str, bytes]]:
    """Stage, file name and content of what is to be computed: another fingerprint, another picture."""
    row = item.row
    row.patient_id = row.patient_id or "p-" + row.image_id
    row.width = row.height = 224
    row.mean_intensity = 100.0
    plain = np.tile(np.arange(224, dtype=np.uint8), (224, 1))
    fingerprint = item.fingerprints[item.compute[-1]]
    image = np.roll(plain, int(fingerprint[:8], 16) % 224, axis=1)
    image[0, :16] = np.frombuffer(bytes.fromhex(fingerprint[:32]), np.uint8)  # no two pictures are the same
    mask = np.where(plain > 100, 255, 0).astype(np.uint8)
    picture, outline = (cv2.imencode(".png", pixels)[1].tobytes() for pixels in (image, mask))
    tensor = npz_bytes(np.dstack([image, image, image, mask]))
    png = f"{row.image_id}.png"
    made = [
        ("raw", png, picture),
        ("masks", png, outline),
        ("preprocessed", png, picture),
        ("npz", f"{row.image_id}.npz", tensor),
    ]
    return [output for output in made if output[0] in item.compute]


def png(seed: int) -> bytes:
    """A tiny picture, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def stub_definitions() -> Any:
    """The whole application on ``PENUMO_ROOT``, which is read when a run starts, with stub jobs."""
    storage = Storage(root=EnvVar("PENUMO_ROOT"))
    return build_definitions({"storage": storage, "jobs": StubJobRunner(storage=storage)})


defs = stub_definitions()
