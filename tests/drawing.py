"""What the tests of the drawing page share: scans in several orientations, a client with the token, a tiny training."""

import json
from pathlib import Path

import nibabel
import numpy as np
from small import save
from starlette.testclient import TestClient

from scribbleseg.data.dataset import Dataset
from scribbleseg.data.volume import write_volume
from scribbleseg.draw.draw import open_session
from scribbleseg.draw.predictions import FAILED
from scribbleseg.draw.server import make_app
from scribbleseg.draw.session import Session
from scribbleseg.draw.update import Updater

PORT, TOKEN = 8123, "a-token"
TINY = {"method": "pce", "iterations": 2, "size": 32, "batch": 2, "precision": "float32", "device": "cpu"}
ORIENTATIONS = ("RAS", "LPS", "SAR", "PIL")  # of the file's axes


def scan(path: Path, codes: str, shape_ras: tuple[int, int, int] = (40, 36, 5)) -> None:
    """A scan whose slices lie across S, 4 mm apart; its file has the axes `codes`, as in nibabel."""
    rng = np.random.default_rng(sum(map(ord, path.name)))
    image = rng.normal(100, 10, shape_ras)
    image[10:26, 8:24] += 80
    affine = np.diag([1.0, 1.5, 4.0, 1.0])
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(codes)
    )
    turned = nibabel.orientations.apply_orientation(image, turn)
    save(path, turned.astype(np.int16), affine @ nibabel.orientations.inv_ornt_aff(turn, shape_ras))


def scans(folder: Path, codes: tuple[str, ...] = ORIENTATIONS) -> Path:
    """A bare folder with a scan per orientation, named after it."""
    for code in codes:
        scan(folder / f"scan_{code}.nii.gz", code)
    return folder


def client(session: Session, training: dict | None = None) -> TestClient:
    """A client that has the token already, and sends the page's header."""
    app = make_app(session, Updater(session, training or TINY), TOKEN, PORT)
    there = TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers={"x-scribbleseg": session.id})
    there.get("/", params={"token": TOKEN})
    return there


def opened(folder: Path, classes: tuple[str, ...] = ()) -> TestClient:
    return client(open_session(folder, classes))


def voxels_ras(path: Path) -> np.ndarray:
    """The voxels of a file in RAS order, whatever the order of its axes."""
    return np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


def label_ras(dataset: Dataset, case: str) -> np.ndarray:
    return voxels_ras(dataset.folder / "labelsTr" / f"{case}{dataset.file_ending}")


def pretend_update(
    session: Session, number: int, labels: dict[str, np.ndarray], entropy: dict[str, np.ndarray]
) -> None:
    """What a finished update leaves behind: labels and entropy [D, H, W] of some cases."""
    folder = session.work / "updates" / str(number)
    (folder / "uncertainty").mkdir(parents=True)
    for name, label in labels.items():
        grid = session.images.grid(session.case(name))
        end = session.data.file_ending
        write_volume(folder / "predictions" / f"{name}{end}", label.astype(np.uint8), grid)
        write_volume(folder / "predictions" / f"{name}_entropy{end}", entropy[name].astype(np.float32), grid)
        means = [float(plane.mean()) for plane in entropy[name]]
        (folder / "uncertainty" / f"{name}.json").write_text(json.dumps(means), encoding="utf-8")
    (folder / FAILED).write_text("{}", encoding="utf-8")
