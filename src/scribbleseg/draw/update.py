"""The Update button: one training and its predictions in a process of its own, and how far it is."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic import LEFTOVER_SECONDS
from ..core.errors import InputError
from ..core.json_file import read_json
from ..data.enclosure import not_enclosed
from ..training.plan import read_plan
from .folder import link_or_copy
from .predictions import FAILED
from .session import Session

TRAINING: dict[str, Any] = {"preset": "fast"}
FIRST_SECONDS, NEXT_SECONDS = 240, 60  # of training; with reading and predicting 5 minutes, then 90 seconds
CONTINUED_ITERATIONS = 300  # at most, of an update that starts from the model of the one before
PATIENCE = 15  # seconds that a stopped process has before it is killed
KEPT = 2  # finished updates on disk, beside those that hold the last prediction of a case
COUNTED = re.compile(r"^.*: \d+/\d+ .*$", re.MULTILINE)  # a line of a progress bar


@dataclass(frozen=True)
class Progress:
    """What the page shows of an update."""

    phase: str = "idle"  # idle, starting, training, predicting, stopping, done, stopped, failed
    number: int = 0
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    message: str = ""


class Updater:
    """Runs one update at a time. The strokes are copied when it starts, so drawing can go on."""

    def __init__(self, session: Session, training: dict[str, Any] | None = None):
        self.session, self.training = session, TRAINING if training is None else training
        self.lock = threading.Lock()
        self.process: subprocess.Popen | None = None
        self.folder, self.began = Path(), 0.0
        self.stopped = False
        self.last = Progress()
        session.running = lambda: int(self.folder.name) if self.running else None

    def start(self, open_case: str) -> None:
        """Train on the cases with strokes, then predict all cases, `open_case` first.

        The training starts from the model of the last update, if there is one. On a slow machine it is shorter than the
        preset's (see `work.affordable`). Raises InputError while an update runs, and if a class is not drawn yet.
        """
        with self.lock:
            if self.running:
                raise InputError("an update is running already. Wait for it, or stop it.")
            self.session.refresh()
            self.session.case(open_case)
            self._check_drawn()
            number = max((int(path.name) for path in self.session.predictions.updates()), default=0) + 1
            self.folder = self.session.work / "updates" / str(number)
            shutil.rmtree(self.folder, ignore_errors=True)
            before = self._last_run()
            settings = dict(self.training)
            if before is not None:
                settings |= {"init": str(before)}
                settings["iterations"] = min(settings.get("iterations", CONTINUED_ITERATIONS), CONTINUED_ITERATIONS)
            seconds = FIRST_SECONDS if before is None else NEXT_SECONDS
            self._write(open_case, settings, None if "iterations" in self.training else seconds)
            cores = os.cpu_count() or 1
            threads = str(max(cores - 1, 1) if cores > 2 else cores)
            environment = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"} | os.environ  # beside the server
            with open(self.folder / "output.log", "wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "scribbleseg.draw", str(self.folder)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C in the terminal stops the server, which then stops the training
                )
            self.stopped, self.began = False, time.monotonic()
            self.last = Progress("starting", number)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, patience: float = PATIENCE) -> None:
        """End the update that runs, at once after Ctrl-C. The model and the predictions of the one before stay."""
        process = self.process
        if process is None or process.poll() is not None:
            return
        self.stopped = True
        process.send_signal(signal.SIGINT)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()

    def progress(self) -> Progress:
        """How far the update is; after its end, how it ended."""
        with self.lock:
            if self.last.phase in ("starting", "training", "predicting", "stopping") and self.process is not None:
                code = self.process.poll()
                self.last = self._running() if code is None else self._ended(code)
            return self.last

    def _check_drawn(self) -> None:
        dataset = self.session.data
        drawn = [seen.voxels for seen in self.session.overview.values() if seen.voxels and not seen.error]
        counts = np.sum(drawn, 0) if drawn else np.zeros(len(dataset.classes))
        missing = [name for name, count in zip(dataset.classes, counts) if not count]
        if missing:
            raise InputError(f"nothing is drawn yet of: {', '.join(missing)}. Draw a stroke of each class first.")

    def _last_run(self) -> Path | None:
        """The run of the latest update that was trained to its end, unless a class was added since."""
        run = next((path / "run" for path in self.session.predictions.finished()), None)
        return run if run is not None and read_plan(run)[1].classes == self.session.data.classes else None

    def _write(self, open_case: str, settings: dict[str, Any], seconds: float | None) -> None:
        """The data set of this update (links to the images, copies of the strokes, no splits) and job.json."""
        session, dataset = self.session, self.session.data
        data = self.folder / "data"
        for part in ("imagesTr", "labelsTr"):
            (data / part).mkdir(parents=True)
        names = [name for name, seen in session.overview.items() if seen.slices and not seen.error]
        for name in names:
            for path in dataset.cases[name].images:
                link_or_copy(path, data / "imagesTr" / path.name)
        with session.strokes.lock:  # a class that is added meanwhile changes all labels
            for name in names:
                shutil.copyfile(path := session.strokes.path(session.case(name)), data / "labelsTr" / path.name)
            description = read_json(session.place / "dataset.json") | {"numTraining": len(names)}
            if not session.strokes.current:
                raise InputError("another program has added a class meanwhile. Open the page again, then update.")
        description.pop("groups", None)
        (data / "dataset.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
        readable = [name for name, seen in session.overview.items() if not seen.error and name != open_case]
        images = {name: [str(path) for path in dataset.cases[name].images] for name in [open_case, *readable]}
        job = {"train": settings, "seconds": seconds, "images": images}
        (self.folder / "job.json").write_text(json.dumps(job, indent=1), encoding="utf-8")

    def _running(self) -> Progress:
        number = int(self.folder.name)
        if self.stopped:
            return Progress("stopping", number)
        run, job = self.folder / "run", read_json(self.folder / "job.json")
        if not (run / "log.jsonl").is_file() or not (run / "config.json").is_file():
            return Progress("starting", number, message=self._last_line())
        total = read_json(run / "config.json")["plan"]["recipe"]["iterations"]
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        logged = [json.loads(line) for line in lines if line.endswith("\n")]
        done = logged[-1]["iteration"] if logged else 0
        if done < total:
            seconds = [entry["seconds_per_iteration"] for entry in logged[-5:]]
            left = (total - done) * float(np.mean(seconds)) if seconds else None
            return Progress("training", number, done, total, left)
        predicted = len(list((self.folder / "uncertainty").glob("[!.]*.json")))
        return Progress("predicting", number, predicted, len(job["images"]))

    def _last_line(self) -> str:
        """What the process reads or learns before its training, such as "learning where rings lie: 41/170 it"."""
        text = (self.folder / "output.log").read_text(encoding="utf-8", errors="replace")
        return (COUNTED.findall(text) or [""])[-1]

    def _ended(self, code: int) -> Progress:
        number, minutes = int(self.folder.name), (time.monotonic() - self.began) / 60
        if (self.folder / FAILED).is_file():
            failed = read_json(self.folder / FAILED)
            self._delete_old()
            said = "".join(f" Not predicted: {name}: {error}" for name, error in failed.items())
            return Progress("done", number, message=f"Updated in {minutes:.1f} minutes.{self._outside()}{said}")
        stays = " The model before it stays." if self.session.predictions.finished() else ""
        if self.stopped:
            return Progress("stopped", number, message=f"Stopped.{stays}")
        lines = (self.folder / "output.log").read_text(encoding="utf-8", errors="replace").splitlines()
        why = lines[-1] if lines and code > 0 else f"the process was ended by signal {-code}" if code < 0 else "unknown"
        return Progress("failed", number, message=f"The update failed: {why.removesuffix('.')}.{stays}")

    def _delete_old(self) -> None:
        """Delete updates that did not finish, and finished ones that no case needs, but for the last KEPT.

        One that did not finish may be running in another server, so it is kept for an hour.
        """
        predictions, cases, now = self.session.predictions, self.session.data.cases.values(), time.time()
        needed = {str(predictions.number(case)) for case in cases}
        needed |= {path.name for path in predictions.finished()[:KEPT]}
        old = [path for path in predictions.updates() if int(path.name) < int(self.folder.name)]
        for path in (path for path in old if path.name not in needed):
            with suppress(FileNotFoundError):  # another server has deleted it
                changed = max(part.stat().st_mtime for part in (path, *path.iterdir()))
                if (path / FAILED).is_file() or now - changed > LEFTOVER_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)

    def _outside(self) -> str:
        """A remark where the strokes do not say what lies outside of the structures."""
        fitted = read_plan(self.folder / "run")[1].fitted
        return f" Note: {not_enclosed(fitted.closed)}." if fitted.enclosure == "off" else ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self.progress())
