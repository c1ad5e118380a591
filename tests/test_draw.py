"""`scribbleseg draw` without a browser: the data set, the requests of the page, its rules of safety, an update."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from drawing import ORIENTATIONS, PORT, TINY, TOKEN, client, label_ras, opened, scan, scans, voxels_ras
from PIL import Image
from small import plan_of, small_dataset
from starlette.testclient import TestClient
from test_folders import write_series
from tiny import image

from scribbleseg.cli import main
from scribbleseg.config import Draw, Train
from scribbleseg.core.errors import InputError
from scribbleseg.data.fitting import fit
from scribbleseg.data.importers.write import write_blank
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import Grid
from scribbleseg.draw.draw import STOPPING, draw, listen, listen_again, open_session
from scribbleseg.draw.planes import planes
from scribbleseg.draw.server import make_app
from scribbleseg.draw.session import Session
from scribbleseg.draw.strokes import Conflict
from scribbleseg.draw.update import FIRST_SECONDS, NEXT_SECONDS, Progress, Updater
from scribbleseg.draw.work import affordable
from scribbleseg.draw.work import main as work
from scribbleseg.training.plan import read_plan

CASE = "case.0 a"
NOT_DRAWN = 255
FORK = multiprocessing.get_context("fork")  # a server that has everything imported; it does not train


def get_plane(there: TestClient, case: str, kind: str, axis: int, index: int) -> np.ndarray:
    answer = there.get(f"/api/cases/{case}/{kind}/{axis}/{index}")
    assert answer.status_code == 200, answer.text
    shape = int(answer.headers["x-rows"]), int(answer.headers["x-columns"])
    return np.frombuffer(answer.content, answer.headers["x-type"]).reshape(shape)


def put_slice(there: TestClient, case: str, index: int, shown: np.ndarray, version: str):
    return there.put(
        f"/api/cases/{case}/strokes/{index}", content=shown.tobytes(), headers={"if-match": f'"{version}"'}
    )


def accept(there: TestClient, case: str) -> dict:
    version = there.get(f"/api/cases/{case}").json()["version"]
    answer = there.post(f"/api/cases/{case}/accept", headers={"if-match": f'"{version}"'})
    assert answer.status_code == 200, answer.text
    return answer.json()


def restore(there: TestClient, case: str, key: str, reviewed: bool = False):
    """Take an accepted case back, on the version that is on the disk now."""
    version = there.get(f"/api/cases/{case}").json()["version"]
    body = {"accepted": key, "reviewed": reviewed}
    return there.post(f"/api/cases/{case}/restore", json=body, headers={"if-match": f'"{version}"'})


@pytest.fixture
def dataset(tmp_path) -> Path:
    return small_dataset(tmp_path / "data", cases=3)


# --- the data set


def test_a_bare_folder_becomes_a_data_set_beside_it_and_stays_as_it_is(tmp_path):
    folder = scans(tmp_path / "scans")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    session = open_session(folder, ("liver=green", "kidney"))
    place = tmp_path / "scans_scribbles"
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    dataset = read_dataset(place)
    assert dataset.classes == ("background", "liver", "kidney") and dataset.ignore == 3
    assert list(dataset.cases) == sorted(f"scan_{code}" for code in ORIENTATIONS)
    assert all((place / "imagesTr" / f"{case}_0000.nii.gz").is_symlink() for case in dataset.cases)
    assert session.colours[1] == "#008000" and session.colours[2].startswith("#")
    again = open_session(folder)  # also finds a scan that came later
    assert again.colours == session.colours
    scan(folder / "late.nii.gz", "RAS")
    assert "late" in open_session(folder).data.cases


def test_without_links_the_images_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = scans(tmp_path / "scans", ("RAS",))
    place = open_session(folder, ("liver",)).place
    image = place / "imagesTr" / "scan_RAS_0000.nii.gz"
    assert not image.is_symlink() and image.read_bytes() == (folder / "scan_RAS.nii.gz").read_bytes()


def test_classes_are_named_in_the_page(tmp_path):
    folder = scans(tmp_path / "scans", ("RAS",))
    there = opened(folder)
    assert there.get("/api/session").json()["classes"] is None
    assert not (tmp_path / "scans_scribbles").exists()
    answer = there.post("/api/classes", json={"classes": [{"name": "<b>liver</b>", "colour": "#123456"}]})
    assert answer.json()["classes"][1] == {"name": "<b>liver</b>", "colour": "#123456"}
    assert read_dataset(tmp_path / "scans_scribbles").classes == ("background", "<b>liver</b>")


@pytest.mark.parametrize(
    "classes, words",
    [
        ((), "no class is named"),
        (("liver", "liver"), "class 'liver' is named twice. "),
        (("liver", "Liver"), "class 'Liver' is named twice, as 'liver' too"),
        (("background",), "has 'background' already"),
        (("Ignore",), "has 'ignore' already"),
        ((" liver",), "printable"),
        (("li\nver",), "printable"),
    ],
)
def test_bad_class_names_leave_nothing(tmp_path, classes, words):
    there = opened(scans(tmp_path / "scans", ("RAS",)))
    answer = there.post("/api/classes", json={"classes": [{"name": name} for name in classes]})
    assert answer.status_code == 400 and words in answer.json()["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["scans"]


def test_folders_that_cannot_be_drawn_on_are_refused(tmp_path, dataset):
    with pytest.raises(InputError, match="no such folder"):
        open_session(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file; expected a folder of scans.* Give the folder it lies in"):
        open_session(dataset / "imagesTr" / f"{CASE}_0000.nii.gz")
    with pytest.raises(InputError, match="no scans in it"):
        open_session(tmp_path)
    folder = scans(tmp_path / "scans", ("RAS",))
    with pytest.raises(InputError, match=r"has the classes square, core; got liver\. Give these first"):
        open_session(dataset, ("liver",))
    with pytest.raises(InputError, match="colour 'greeen': expected a name"):
        open_session(folder, ("liver=greeen",))
    (folder / "other.nrrd").touch()
    with pytest.raises(InputError, match=r"2 kinds, \.nii\.gz, \.nrrd; a data set has one"):
        open_session(folder)
    (folder / "other.nrrd").unlink()
    scan(folder / "scan_RAS_0000.nii.gz", "RAS")
    with pytest.raises(InputError, match="would be the same case"):
        open_session(folder)
    (folder / "scan_RAS.nii.gz").unlink()
    scan(folder / "scan_RAS_0001.nii.gz", "RAS")
    scan(folder / "other.nii.gz", "RAS")
    with pytest.raises(InputError, match="scan_RAS has the channels 0000, 0001, and other has 0000. Every case"):
        open_session(folder)


def test_a_folder_of_scans_is_shown_whole(tmp_path, capsys):
    folder = scans(tmp_path / "scans", ("RAS",))
    (folder / "notes.txt").touch()
    open_session(folder, ("liver",))
    assert "1 not shown, no scans: notes.txt" in capsys.readouterr().err
    (folder / "gone.nii.gz").symlink_to("nowhere")
    with pytest.raises(InputError, match="gone.nii.gz: links to nowhere, which is gone. Put the scan there"):
        open_session(folder)


def test_scans_beside_which_nothing_can_be_written_say_what_to_do(tmp_path, monkeypatch):
    folder = scans(tmp_path / "scans", ("RAS",))
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(InputError, match="would lie here, and .* cannot be written to. Make a folder where you may"):
        open_session(folder)
    mine = tmp_path / "home" / "mine"
    mine.mkdir(parents=True)
    (mine / "scan_RAS.nii.gz").symlink_to(folder / "scan_RAS.nii.gz")
    assert list(open_session(mine, ("liver",)).data.cases) == ["scan_RAS"]


def test_a_name_that_is_no_text_is_refused(tmp_path, dataset):
    folder = scans(tmp_path / "scans", ("RAS",))
    (folder / "scan_RAS.nii.gz").rename(folder / "caf\udce9.nii.gz")
    with pytest.raises(InputError, match=r"case 'caf\\udce9': the name of its files is not UTF-8"):
        open_session(folder, ("liver",))
    assert not (tmp_path / "scans_scribbles").exists()
    for path in (dataset / "imagesTr").iterdir():
        path.rename(path.with_name(f"\udce9{path.name}"))
    shutil.rmtree(dataset / "labelsTr")
    (dataset / "splits_final.json").unlink(missing_ok=True)
    with pytest.raises(InputError, match="not UTF-8"):
        open_session(dataset)


def test_a_dicom_series_becomes_a_volume_and_its_files_stay(tmp_path):
    pytest.importorskip("SimpleITK")
    voxels = image(0)
    write_series(tmp_path / "scans" / "anna", voxels, [10, 12.5, 15, 17.5])
    before = {path.name: path.read_bytes() for path in (tmp_path / "scans" / "anna").iterdir()}
    session = open_session(tmp_path / "scans", ("liver",))
    stored = nibabel.load(session.place / "imagesTr" / "anna_0000.nii.gz")
    assert np.array_equal(np.asanyarray(stored.dataobj), voxels)
    there = client(session)
    version = there.get("/api/cases/anna").json()["version"]
    assert put_slice(there, "anna", 1, get_plane(there, "anna", "strokes", 0, 1) * 0 + 1, version).status_code == 200
    label = nibabel.load(session.place / "labelsTr" / "anna.nii.gz")
    assert np.array_equal(label.affine, stored.affine) and (np.asanyarray(label.dataobj)[:, :, 1] == 1).all()
    assert {path.name: path.read_bytes() for path in (tmp_path / "scans" / "anna").iterdir()} == before
    shutil.copytree(tmp_path / "scans" / "anna", tmp_path / "alone")
    assert list(open_session(tmp_path / "alone", ("liver",)).data.cases) == ["alone"]  # the folder itself is a series
    (tmp_path / "scans" / "bert").mkdir()
    (tmp_path / "scans" / "bert" / "1.dcm").write_bytes(next(iter(before.values()))[:-30])
    with pytest.raises(InputError, match="bert"):
        open_session(tmp_path / "scans")
    assert [path.name for path in (session.place / "imagesTr").iterdir()] == ["anna_0000.nii.gz"]


def test_coloured_pictures_are_drawn_on(tmp_path):
    colours = np.random.default_rng(0).integers(0, 255, (30, 20, 3), dtype=np.uint8)
    (tmp_path / "scans").mkdir()
    Image.fromarray(colours).save(tmp_path / "scans" / "a.png")
    there = opened(tmp_path / "scans", ("cell",))
    assert there.get("/api/session").json()["channels"] == ["R", "G", "B"]
    case = there.get("/api/cases/a").json()
    assert case["shape"] == [1, 30, 20] and case["coloured"] and len(case["windows"]) == 4
    for channel in range(3):
        answer = there.get(f"/api/cases/a/image/0/0?channel={channel}")
        assert answer.content == np.ascontiguousarray(colours[:, :, channel]).tobytes()
    assert there.get("/api/cases/a/image/0/0?channel=3").content == colours.tobytes()
    assert there.get("/api/cases/a/image/0/0?channel=4").status_code == 400
    shown = np.full((30, 20), NOT_DRAWN, np.uint8)
    shown[3, 5:9], shown[20, 10:] = 1, 0
    assert put_slice(there, "a", 0, shown, case["version"]).status_code == 200
    label = np.array(Image.open(tmp_path / "scans_scribbles" / "labelsTr" / "a.png"))
    assert np.array_equal(label, np.where(shown == NOT_DRAWN, 2, shown))


def test_an_update_predicts_pictures(tmp_path):
    (tmp_path / "scans").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (40, 36, 3), dtype=np.uint8)).save(tmp_path / "scans" / f"{name}.png")
    there = opened(tmp_path / "scans", ("cell",))
    shown = np.full((40, 36), NOT_DRAWN, np.uint8)
    shown[3, 5:19], shown[20, 10:] = 1, 0
    put_slice(there, "a", 0, shown, "none")
    session = open_session(tmp_path / "scans")
    run_here(Updater(session, TINY), "b")
    there = client(session)
    assert get_plane(there, "b", "prediction", 0, 0).max() <= 1
    assert get_plane(there, "b", "uncertainty", 0, 0).shape == (40, 36)


def test_channels_are_shown_one_by_one(tmp_path):
    folder = tmp_path / "scans"
    for case in ("anna", "bert"):
        for channel in ("0000", "0001"):
            scan(folder / f"{case}_{channel}.nii.gz", "RAS")
    there = opened(folder, ("liver",))
    about = there.get("/api/session").json()
    assert about["channels"] == ["channel 0", "channel 1"] and [row["id"] for row in about["cases"]] == ["anna", "bert"]
    case = there.get("/api/cases/anna").json()
    assert len(case["windows"]) == 2 and not case["coloured"]
    for channel in range(2):
        found = there.get(f"/api/cases/anna/image/0/2?channel={channel}").content
        voxels = voxels_ras(folder / f"anna_000{channel}.nii.gz")[::-1, ::-1]
        assert found in {np.ascontiguousarray(voxels[:, :, z].T).tobytes() for z in range(5)}
    scan(folder / "anna_0001.nii.gz", "RAS", (40, 36, 6))
    answer = opened(folder).get("/api/cases/anna")
    assert answer.status_code == 400 and "All channels of a case need the same grid" in answer.json()["error"]


# --- a class that is added later


def labels_of(place: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asanyarray(nibabel.load(path).dataobj) for path in (place / "labelsTr").iterdir()}


def test_a_class_is_added_and_no_stroke_changes(dataset):
    there, before = opened(dataset), labels_of(dataset)
    stale = opened(dataset)
    case = there.get(f"/api/cases/{CASE}").json()
    rows = there.get("/api/session").json()["classes"][1:]
    answer = there.post("/api/classes", json={"classes": [*rows, {"name": "late", "colour": "#010203"}]})
    assert [row["name"] for row in answer.json()["classes"]] == ["background", "square", "core", "late"]
    assert answer.json()["classes"][3]["colour"] == "#010203"
    found = read_dataset(dataset)
    assert found.classes[-1] == "late" and found.ignore == 4
    for name, label in labels_of(dataset).items():
        assert np.array_equal(label, np.where(before[name] == 3, 4, before[name]))
    assert not (dataset / ".scribbleseg" / "draw" / "new_classes").exists()
    now = there.get(f"/api/cases/{CASE}").json()
    assert [[*row, 0] for row in case["drawn"]] == now["drawn"]
    shown = get_plane(there, CASE, "strokes", 0, 0).copy()
    shown[0, :3] = 3
    assert put_slice(there, CASE, 0, shown, now["version"]).json()["drawn"][0][3] == 3

    # a server that does not know the class yet must not write: its "not drawn" is the new class
    (dataset / "labelsTr" / "case.1 a.nii.gz").unlink()
    refused = put_slice(stale, "case.1 a", 0, shown, "none")
    assert refused.status_code == 400 and "changed elsewhere. Reload" in refused.json()["error"]
    assert not (dataset / "labelsTr" / "case.1 a.nii.gz").exists()
    assert len(stale.get("/api/session").json()["classes"]) == 4  # it reads the data set again
    assert put_slice(stale, "case.1 a", 0, shown, "none").status_code == 200


def test_a_class_is_added_on_the_command_line(dataset):
    session = open_session(dataset, ("square", "core", "late=red"))
    assert session.data.classes == ("background", "square", "core", "late") and session.colours[3] == "#ff0000"
    assert open_session(dataset, ("square", "core", "late")).data.ignore == 4


@pytest.mark.parametrize("name", ["core", "ignore", " late"])
def test_a_class_that_cannot_be_added_changes_nothing(dataset, name):
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="class"):
        open_session(dataset, ("square", "core", name))
    path = dataset / "labelsTr" / "case.2 a.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="case.2 a"):
        open_session(dataset, ("square", "core", "late"))
    path.write_bytes(before[path])
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_a_class_is_added_to_names_that_differ_in_a_capital_only(dataset):
    path = dataset / "dataset.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    described["labels"] = {"background": 0, "liver": 1, "Liver": 2, "ignore": 3}
    path.write_text(json.dumps(described), encoding="utf-8")
    there, before = opened(dataset), labels_of(dataset)
    rows = there.get("/api/session").json()["classes"][1:]
    for name, twin in (("LIVER", "liver"), ("Liver", "Liver")):
        answer = there.post("/api/classes", json={"classes": [*rows, {"name": name}]})
        also = "" if twin == name else ", as 'liver' too"
        assert answer.status_code == 400 and f"class '{name}' is named twice{also}." in answer.json()["error"]
    answer = there.post("/api/classes", json={"classes": [*rows, {"name": "kidney"}]})
    assert answer.status_code == 200
    assert read_dataset(dataset).classes == ("background", "liver", "Liver", "kidney")
    for name, label in labels_of(dataset).items():
        assert np.array_equal(label, np.where(before[name] == 3, 4, before[name]))


@pytest.mark.parametrize("after", range(4))
def test_a_class_that_was_being_added_when_the_process_was_killed_is_there_afterwards(dataset, monkeypatch, after):
    before, replace, left = labels_of(dataset), os.replace, [after]

    class Killed(BaseException):
        pass

    def until(source, target):
        if "new_classes" in Path(source).parts:  # no partial folder
            if not left[0]:
                raise Killed
            left[0] -= 1
        replace(source, target)

    monkeypatch.setattr("scribbleseg.draw.classes.os.replace", until)
    with pytest.raises(Killed):
        open_session(dataset, ("square", "core", "late"))
    monkeypatch.undo()
    assert read_dataset(dataset).ignore == 3  # nobody can take the new values for classes meanwhile
    session = open_session(dataset)
    assert session.data.ignore == 4 and not (dataset / ".scribbleseg" / "draw" / "new_classes").exists()
    for name, label in labels_of(dataset).items():
        assert np.array_equal(label, np.where(before[name] == 3, 4, before[name]))


def test_after_a_new_class_an_update_starts_from_the_beginning(of_one, tmp_path):
    accepted = accept(of_one, CASE)
    session = open_session(tmp_path / "copy", ("square", "core", "late"))
    updater = Updater(session, TINY)
    with pytest.raises(InputError, match="nothing is drawn yet of: late"):
        updater.start(CASE)
    there = client(session)
    back = restore(there, CASE, accepted["accepted"]).json()  # its "not drawn" has the new value too
    assert np.sum(back["drawn"]) < np.sum(accepted["drawn"])
    shown = get_plane(there, CASE, "strokes", 0, 0).copy()
    shown[0, :5] = 3
    assert put_slice(there, CASE, 0, shown, back["version"]).status_code == 200
    run_here(updater, CASE)
    config = json.loads((session.work / "updates/2/run/config.json").read_text(encoding="utf-8"))
    assert config["train"]["init"] is None and config["plan"]["classes"][-1] == "late"


# --- slices and strokes


def test_planes_show_the_patients_right_on_the_left_and_the_front_on_top(tmp_path):
    folder = scans(tmp_path / "scans")
    session = open_session(folder, ("liver",))
    for code in ORIENTATIONS:
        name = f"scan_{code}"
        ras = voxels_ras(folder / f"{name}.nii.gz")
        voxels, grid = session.images.channel(session.case(name), 0)
        assert voxels.shape[0] == 5
        axial, *others = planes(grid)
        assert axial.edges == ("R", "L", "A", "P") and axial.spacing_mm == (1.5, 1.0)
        upward = {plane.edges: plane for plane in others}
        assert upward.keys() == {("R", "L", "S", "I"), ("A", "P", "S", "I")}
        # nibabel's codes name the end of an axis: RAS+ index 0 is left, back, foot. "R" on the left means x runs down
        first = ras[::-1, ::-1, :]  # rows from the front, columns from the right
        got = {session.images.shown(session.case(name), 0, 0, index).tobytes() for index in range(5)}
        assert got == {np.ascontiguousarray(first[:, :, z].T).tobytes() for z in range(5)}
        coronal = upward["R", "L", "S", "I"]
        shown = session.images.shown(session.case(name), 0, coronal.axis, 0)
        assert any(np.array_equal(shown, ras[::-1, y, ::-1].T) for y in (0, 35))


@pytest.mark.parametrize("code", ORIENTATIONS)
def test_strokes_are_written_voxel_for_voxel(tmp_path, code):
    there = opened(scans(tmp_path / "scans", (code,)), ("liver", "kidney"))
    name, place = f"scan_{code}", tmp_path / "scans_scribbles"
    case = there.get(f"/api/cases/{name}").json()
    assert case["shape"][0] == 5 and case["version"] == "none" and not (place / "labelsTr").exists()
    shown = np.full((36, 40), NOT_DRAWN, np.uint8)  # rows from the front, columns from the right
    shown[3, 5:9], shown[30, 20], shown[10:12, 7] = 1, 2, 0
    answer = put_slice(there, name, 2, shown, case["version"])
    assert answer.status_code == 200 and answer.json()["drawn"][2] == [2, 4, 1]
    expected = np.full((40, 36, 5), 3, np.uint8)
    expected[:, :, 2] = np.where(shown == NOT_DRAWN, 3, shown).T[::-1, ::-1]
    dataset = read_dataset(place)
    assert np.array_equal(label_ras(dataset, name), expected)
    image, label = (nibabel.load(place / part) for part in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"))
    assert label.shape == image.shape and np.array_equal(label.affine, image.affine)
    assert np.array_equal(get_plane(there, name, "strokes", 0, 2), shown)
    across = get_plane(there, name, "strokes", 2, 0)
    assert across.shape[0] == 5  # the slices lie above each other
    assert np.array_equal(get_plane(opened(place), name, "strokes", 0, 2), shown)  # another server, from disk


def test_an_existing_data_set_opens_with_its_strokes(dataset):
    there = opened(dataset)
    about = there.get("/api/session").json()
    assert [row["name"] for row in about["classes"]] == ["background", "square", "core"]
    assert about["cases"][0]["voxels"] == [51, 42, 15] and about["cases"][0]["slices"] == [0, 1, 2]
    case = there.get(f"/api/cases/{CASE}").json()
    assert np.sum(case["drawn"], 0).tolist() == [51, 42, 15]
    values, counts = np.unique(get_plane(there, CASE, "strokes", 0, 1), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist())) == {0: 17, 1: 14, 2: 5, NOT_DRAWN: 40 * 36 - 36}


def test_numbers_of_an_image_arrive_as_they_are(tmp_path):
    for name, kind, sent in (("a", np.uint8, "uint8"), ("b", np.int16, "int16"), ("c", np.uint16, "float32")):
        image = (np.arange(600).reshape(10, 12, 5) * 100).astype(kind)
        (tmp_path / "scans").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(image, np.diag([-1, -1, 3, 1])), tmp_path / "scans" / f"{name}.nii")
        if name == "a":
            session = open_session(tmp_path / "scans", ("liver",))
        session = open_session(tmp_path / "scans")
        shown = get_plane(client(session), name, "image", 0, 3)
        assert shown.dtype.name == sent and np.array_equal(shown, image[:, :, 3].T)
    assert isinstance(session.images.channel(session.case("b"), 0)[0].base, np.memmap)  # an uncompressed file is mapped


def test_a_second_tab_gets_a_conflict_and_overwrites_nothing(dataset):
    one, two = opened(dataset), opened(dataset)  # two servers, as two people on a shared disk would have
    version = one.get(f"/api/cases/{CASE}").json()["version"]
    assert two.get(f"/api/cases/{CASE}").json()["version"] == version
    mine = get_plane(one, CASE, "strokes", 0, 0).copy()
    mine[0, 0] = 1
    saved = put_slice(one, CASE, 0, mine, version)
    theirs = get_plane(two, CASE, "strokes", 0, 1).copy()
    theirs[0, 0] = 2
    answer = put_slice(two, CASE, 1, theirs, version)
    assert answer.status_code == 412 and "changed elsewhere" in answer.json()["error"]
    assert np.array_equal(get_plane(two, CASE, "strokes", 0, 0), mine)
    assert get_plane(two, CASE, "strokes", 0, 1)[0, 0] == NOT_DRAWN
    assert put_slice(one, CASE, 0, mine, version).status_code == 412  # an old version of one's own
    assert put_slice(two, CASE, 1, theirs, saved.json()["version"]).status_code == 200


def test_strokes_of_another_program_are_seen_without_opening_the_case(dataset):
    there, path = opened(dataset), dataset / "labelsTr" / "case.1 a.nii.gz"
    stored = nibabel.load(path)
    label = np.full(stored.shape, 3, np.uint8)
    label[4, 5, 1] = 2
    nibabel.save(nibabel.Nifti1Image(label, stored.affine), path)
    row = there.get("/api/session").json()["cases"][1]
    assert row["voxels"] == [0, 0, 1] and row["slices"] == [1]
    path.unlink()
    assert there.get("/api/session").json()["cases"][1]["slices"] == []


def test_bad_slices_change_nothing(dataset):
    there = opened(dataset)
    version = there.get(f"/api/cases/{CASE}").json()["version"]
    path = dataset / "labelsTr" / f"{CASE}.nii.gz"
    before, good = path.read_bytes(), get_plane(there, CASE, "strokes", 0, 0)
    for index, shown, words in (
        (0, good[:-1], "a slice has"),
        (0, np.full_like(good, 3), "value 3, which is no class"),
        (3, good, "expected 0 to 2"),
    ):
        answer = put_slice(there, CASE, index, shown, version)
        assert answer.status_code == 400 and words in answer.json()["error"]
    assert there.get("/api/cases/nobody").status_code == 400
    assert there.get(f"/api/cases/{CASE}/image/3/0").status_code == 400
    assert there.get(f"/api/cases/{CASE}/image/0/0?channel=1").status_code == 400
    assert there.get(f"/api/cases/{CASE}/prediction/0/0").status_code == 400
    assert path.read_bytes() == before and put_slice(there, CASE, 0, good, version).status_code == 200


def test_a_save_that_fails_leaves_the_file_and_the_strokes_in_memory(dataset, monkeypatch):
    session = open_session(dataset)
    there = client(session)
    version = there.get(f"/api/cases/{CASE}").json()["version"]
    before = get_plane(there, CASE, "strokes", 0, 0)

    def fail(*_):
        raise InputError("the disk is full")

    monkeypatch.setattr("scribbleseg.draw.strokes.write_volume", fail)
    answer = put_slice(there, CASE, 0, np.zeros_like(before), version)
    assert answer.status_code == 400 and answer.json()["error"] == "the disk is full"
    assert np.array_equal(get_plane(there, CASE, "strokes", 0, 0), before)
    assert session.strokes.read(session.case(CASE)).version == version


def test_a_server_that_is_killed_while_it_saves_leaves_whole_files(dataset):
    saving = FORK.Event()

    def save() -> None:
        session = Session(dataset)
        version = session.strokes.read(session.case(CASE)).version
        for number in range(10**6):
            shown = np.full((36, 40), number % 3, np.uint8).tobytes()
            version = session.save_slice(CASE, number % 3, shown, version).version
            if number == 5:
                saving.set()

    server = FORK.Process(target=save)
    server.start()
    assert saving.wait(60)
    time.sleep(0.1)
    server.kill()
    server.join()
    assert server.exitcode == -signal.SIGKILL
    there = opened(dataset)
    case = there.get(f"/api/cases/{CASE}").json()
    assert np.array(case["drawn"]).sum() == 3 * 36 * 40
    assert put_slice(there, CASE, 0, get_plane(there, CASE, "strokes", 0, 0), case["version"]).status_code == 200


@pytest.mark.parametrize(
    "text", ["[]", '{"colours": {"square": 5}}', '{"reviewed": [null]}', '{"colours": {"square": "x"}}']
)
def test_what_the_page_keeps_is_held_to_its_types(dataset, text):
    path = dataset / ".scribbleseg" / "draw" / "session.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="session.json: |colour 'x': expected a name"):
        open_session(dataset)


def test_a_relative_path_is_where_it_seems(dataset, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    session = open_session(Path("data"))
    assert session.describe()["masks"] == str(dataset.parent / "data_masks")
    monkeypatch.chdir(dataset)
    assert open_session(Path(".")).describe()["masks"] == str(dataset.parent / "data_masks")


def test_an_unreadable_case_is_named_and_the_others_open(dataset):
    path = dataset / "imagesTr" / f"{CASE}_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    there = opened(dataset)
    answer = there.get(f"/api/cases/{CASE}")
    assert answer.status_code == 400 and "cannot be read" in answer.json()["error"]
    assert "cannot be read" in there.get("/api/session").json()["cases"][0]["error"]
    assert there.get("/api/cases/case.1 a").status_code == 200


# --- who may speak to the server


def stranger(dataset: Path, **keywords) -> TestClient:
    session = Session(dataset)
    app = make_app(session, Updater(session, TINY), TOKEN, PORT)
    return TestClient(app, base_url=keywords.pop("base_url", f"http://127.0.0.1:{PORT}"), **keywords)


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_can_use(dataset):
    there = stranger(dataset, follow_redirects=False)
    assert there.get("/").status_code == there.get("/api/session").status_code == 401
    assert there.get("/static/app.js").status_code == 401
    assert there.get("/", params={"token": TOKEN + "x"}).status_code == 401
    assert there.get("/api/session", params={"token": TOKEN}).status_code == 401  # only the page's own address takes it
    answer = there.get("/", params={"token": TOKEN})
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"scribbleseg_{PORT}=") and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert there.get("/").status_code == there.get("/api/session").status_code == 200
    there.cookies.clear()
    assert there.get("/api/session", headers={"cookie": f"scribbleseg_{PORT}=wrong"}).status_code == 401
    assert there.get("/api/session", headers={"cookie": f"scribbleseg_{PORT + 1}={TOKEN}"}).status_code == 401


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""])
def test_another_host_is_refused(dataset, host):
    there = opened(dataset)
    assert there.get("/api/session", headers={"host": host}).status_code == 403
    assert there.get("/", params={"token": TOKEN}, headers={"host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", f"https://127.0.0.1:{PORT}", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused(dataset, origin):
    there = opened(dataset)
    assert there.get("/api/session", headers={"origin": origin}).status_code == 403
    assert there.delete("/api/update", headers={"origin": origin}).status_code == 403
    assert there.delete("/api/update", headers={"origin": f"http://localhost:{PORT}"}).status_code == 200


def test_a_change_needs_the_pages_header(dataset):
    there = opened(dataset)
    assert there.delete("/api/update").status_code == 200
    del there.headers["x-scribbleseg"]
    assert there.get("/api/session").status_code == 200
    version = there.get(f"/api/cases/{CASE}").json()["version"]
    before = get_plane(there, CASE, "strokes", 0, 0)
    assert put_slice(there, CASE, 0, np.zeros_like(before), version).status_code == 403
    for method, path in (
        ("POST", "/api/classes"),
        ("POST", f"/api/cases/{CASE}/accept"),
        ("POST", "/api/update"),
        ("DELETE", "/api/update"),
        ("POST", "/api/export"),
    ):
        assert there.request(method, path).status_code == 403
    assert np.array_equal(get_plane(there, CASE, "strokes", 0, 0), before)


def test_a_data_set_is_told_from_copies_and_from_others_in_its_place(tmp_path):
    folder = scans(tmp_path / "scans", ("RAS",))
    first = open_session(folder)  # its classes have no names yet
    there = client(first)
    first.remember(PORT)
    assert there.get("/api/session").json()["id"] == first.id
    there.post("/api/classes", json={"classes": [{"name": "liver"}]})
    assert there.get("/api/session").json()["id"] == first.id
    place = tmp_path / "scans_scribbles"
    (tmp_path / "link").symlink_to(place)
    for again in (folder, place, tmp_path / "link"):
        assert open_session(again).id == first.id
    shutil.copytree(place, tmp_path / "copy")
    shutil.rmtree(place)
    others = [open_session(tmp_path / "copy"), open_session(folder, ("liver",))]
    assert len({first.id, *(session.id for session in others)}) == 3


def test_a_data_set_of_the_users_own_keeps_its_id(dataset):
    one = open_session(dataset)
    one.remember(PORT)
    assert open_session(dataset).id == one.id


def test_a_page_of_another_data_set_changes_nothing(dataset, tmp_path):
    there, elsewhere = opened(dataset), opened(small_dataset(tmp_path / "another", cases=3))
    there.headers["x-scribbleseg"] = elsewhere.headers["x-scribbleseg"]
    (dataset / "labelsTr" / f"{CASE}.nii.gz").unlink()
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    shown = np.zeros_like(get_plane(there, CASE, "strokes", 0, 0))
    answers = [put_slice(there, CASE, 0, shown, "none"), there.post(f"/api/cases/{CASE}/accept")]
    answers += [there.put(f"/api/cases/{CASE}/reviewed", json={"reviewed": True}), there.delete("/api/update")]
    for answer in answers:
        assert answer.status_code == 409 and "shows another data set than the server" in answer.json()["error"]
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_every_answer_has_the_headers_of_safety(dataset):
    there = opened(dataset)
    for answer in (there.get("/"), there.get("/api/session"), there.get("/nothing"), stranger(dataset).get("/")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/api/cases/..%2f..%2fdataset/image/0/0",
        "/api/cases/%2e%2e/strokes/0/0",
    ],
)
def test_nothing_outside_is_served(dataset, path):
    answer = opened(dataset).get(path)
    assert answer.status_code in (400, 404) and "import" not in answer.text


def test_the_page_asks_nothing_of_other_places():
    static = Path(sys.modules["scribbleseg.draw.server"].__file__).parent / "static"
    names = [path.name for path in static.iterdir()]
    assert "index.html" in names and len(names) > 3
    for path in static.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "//cdn" not in text
        assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text
        if path.suffix == ".html":
            assert not re.search(r" (style|on\w+)=", text)  # the policy would refuse them


def test_large_and_strange_requests_are_refused(dataset):
    there = opened(dataset)
    assert "expected at most" in there.post("/api/export", headers={"content-length": str(2**40)}).json()["error"]
    assert "not JSON" in there.post("/api/export", content=b"{").json()["error"]
    assert "has no str 'folder'" in there.post("/api/export", json=[]).json()["error"]
    for folder, words in (
        ("~nosuchuser/x", "no such home folder"),
        ("x" * 300, "Choose a shorter name"),
        ("a\0b", "cannot be the name"),
    ):
        assert words in there.post("/api/export", json={"folder": folder, "reviewed": False}).json()["error"]
    assert "no folder is named" in there.post("/api/export", json={"folder": " ", "reviewed": False}).json()["error"]
    assert "expected a number" in there.get(f"/api/cases/{CASE}/image/0/0?channel=x").json()["error"]


# --- update, look, correct


def wait(updater: Updater, phases: set[str], seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (phase := updater.progress().phase) in phases:
            return phase
        time.sleep(0.1)
    raise AssertionError((updater.progress(), (updater.folder / "output.log").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def updated(tmp_path_factory) -> Path:
    """A data set after one update, made in this process; to be read only."""
    place = small_dataset(tmp_path_factory.mktemp("updated") / "data", cases=3)
    (place / "labelsTr" / "case.2 a.nii.gz").unlink()
    updater = Updater(Session(place), TINY)
    run_here(updater, "case.1 a")
    return place


def run_here(updater: Updater, case: str) -> dict:
    """What `start` starts, without a process of its own; returns the job."""
    session = updater.session
    updater.folder = session.work / "updates" / str(len(session.predictions.updates()) + 1)
    before = updater._last_run()
    updater._write(case, TINY | ({"init": str(before)} if before else {}), None)
    assert work(updater.folder) == 0
    return json.loads((updater.folder / "job.json").read_text(encoding="utf-8"))


def test_an_update_trains_on_the_drawn_cases_and_predicts_all_the_open_one_first(updated):
    folder = updated / ".scribbleseg" / "draw" / "updates" / "1"
    assert sorted(read_dataset(folder / "data").cases) == ["case.0 a", "case.1 a"]
    assert next(iter(json.loads((folder / "job.json").read_text(encoding="utf-8"))["images"])) == "case.1 a"
    stored = json.loads((folder / "run" / "config.json").read_text(encoding="utf-8"))
    assert stored["plan"]["fold"]["train"] == ["case.0 a", "case.1 a"]  # not the split of the data set
    session = Session(updated)
    for name in session.data.cases:
        assert (
            session.predictions.number(session.case(name)) == 1
            and len(session.predictions.uncertainty(session.case(name))) == 3
        )
        assert (
            session.predictions.label(session.case(name)).shape == session.strokes.read(session.case(name)).label.shape
        )
    there = client(session)
    entropy = get_plane(there, "case.2 a", "uncertainty", 0, 0)
    stored = nibabel.load(folder / "predictions" / "case.2 a_entropy.nii.gz").get_fdata()
    assert np.isclose(entropy.mean() / 255, session.predictions.uncertainty(session.case("case.2 a"))[0], atol=0.01)
    assert np.isclose(np.mean(session.predictions.uncertainty(session.case("case.2 a"))), stored.mean(), atol=1e-4)


def test_the_next_slice_is_one_without_strokes_of_a_case_with_the_fewest(tmp_path):
    """Cases 0 and 1 are drawn throughout, 2 and 3 not at all; 3 cannot be read."""
    place = small_dataset(tmp_path / "data", cases=4)
    for number in (2, 3):
        (place / "labelsTr" / f"case.{number} a.nii.gz").unlink()
    (place / "imagesTr" / "case.3 a_0000.nii.gz").write_bytes(b"no image")
    session = Session(place)
    found = client(session).get("/api/next").json()
    assert found == client(session).get("/api/next").json()
    assert found["case"] == "case.2 a" and found["slice"] in range(3) and not session.overview["case.2 a"].error
    for index in range(3):
        seen = session.strokes.read(session.case("case.2 a"))
        plane = seen.label[index].copy()
        plane[4, 4] = 1
        session.save_slice("case.2 a", index, plane.tobytes(), seen.version)
    assert session.next_slice() is None and "case.3 a" in session.overview["case.3 a"].error
    session.reviewed.update(session.data.cases)
    assert session.next_slice() is None


@pytest.fixture
def of_one(updated, tmp_path) -> TestClient:
    """A client of a copy of `updated`, which may be changed."""
    place = tmp_path / "copy"
    shutil.copytree(updated, place, symlinks=True)
    return opened(place)


def test_accepting_a_case_keeps_the_strokes_and_can_be_taken_back(of_one, tmp_path):
    place = tmp_path / "copy"
    case = of_one.get(f"/api/cases/{CASE}").json()
    strokes = [get_plane(of_one, CASE, "strokes", 0, index) for index in range(3)]
    predicted = [get_plane(of_one, CASE, "prediction", 0, index) for index in range(3)]
    dense_before = (place / "labelsTr_dense" / f"{CASE}.nii.gz").read_bytes()
    stale = of_one.post(f"/api/cases/{CASE}/accept", headers={"if-match": '"old"'})
    assert stale.status_code == 412
    key = accept(of_one, CASE)["accepted"]
    for index in range(3):
        expected = np.where(strokes[index] == NOT_DRAWN, predicted[index], strokes[index])
        assert np.array_equal(get_plane(of_one, CASE, "strokes", 0, index), expected)
    assert np.isin(nibabel.load(place / "labelsTr" / f"{CASE}.nii.gz").get_fdata(), (0, 1, 2)).all()
    assert (place / "labelsTr_dense" / f"{CASE}.nii.gz").read_bytes() == dense_before
    assert of_one.get("/api/session").json()["cases"][0]["reviewed"]
    assert restore(of_one, CASE, key).json()["drawn"] == case["drawn"]
    assert all(np.array_equal(get_plane(of_one, CASE, "strokes", 0, index), strokes[index]) for index in range(3))
    assert not of_one.get("/api/session").json()["cases"][0]["reviewed"]


def strokes_of(there: TestClient, case: str) -> np.ndarray:
    return np.stack([get_plane(there, case, "strokes", 0, index) for index in range(3)])


def test_a_case_that_is_accepted_twice_goes_back_to_its_strokes(of_one, tmp_path):
    before = strokes_of(of_one, CASE)
    keys = [accept(of_one, CASE)["accepted"] for _ in range(2)]
    again = opened(tmp_path / "copy")  # the server was started anew
    for key in reversed(keys):
        assert restore(again, CASE, key).status_code == 200
    assert np.array_equal(strokes_of(again, CASE), before)


def test_a_case_that_is_accepted_erased_in_and_accepted_goes_back_step_by_step(of_one, tmp_path):
    before, first = strokes_of(of_one, CASE), accept(of_one, CASE)["accepted"]
    accepted = get_plane(of_one, CASE, "strokes", 0, 1)
    erased = accepted.copy()
    erased[4:20, 5:25] = NOT_DRAWN

    def put(shown: np.ndarray) -> None:
        version = of_one.get(f"/api/cases/{CASE}").json()["version"]
        assert put_slice(of_one, CASE, 1, shown, version).status_code == 200

    put(erased)
    second = accept(of_one, CASE)["accepted"]
    assert restore(of_one, CASE, second, reviewed=True).status_code == 200
    assert np.array_equal(get_plane(of_one, CASE, "strokes", 0, 1), erased)
    assert of_one.get("/api/session").json()["cases"][0]["reviewed"]
    put(accepted)
    assert restore(of_one, CASE, first).status_code == 200
    assert np.array_equal(strokes_of(of_one, CASE), before)
    assert not list((tmp_path / "copy/.scribbleseg/draw/accepted").iterdir()), "what was taken back is not kept"


def test_taking_back_an_accepted_case_keeps_what_another_page_has_drawn_since(of_one, tmp_path):
    before, key, other = strokes_of(of_one, CASE), accept(of_one, CASE)["accepted"], opened(tmp_path / "copy")
    theirs = get_plane(other, CASE, "strokes", 0, 0).copy()
    theirs[0, :9] = 2 - (theirs[0, :9] == 2)  # another class than what was accepted
    version = other.get(f"/api/cases/{CASE}").json()["version"]
    assert put_slice(other, CASE, 0, theirs, version).status_code == 200
    accept(other, CASE)
    assert restore(of_one, CASE, key).status_code == 200
    found = strokes_of(of_one, CASE)
    assert np.array_equal(found[0, 0, :9], theirs[0, :9])
    found[0, 0, :9] = before[0, 0, :9]
    assert np.array_equal(found, before)


def test_what_was_accepted_and_is_not_known_any_more_changes_nothing(of_one, tmp_path):
    key = accept(of_one, CASE)["accepted"]
    after, [kept] = strokes_of(of_one, CASE), (tmp_path / "copy/.scribbleseg/draw/accepted").iterdir()
    for odd in ("../../dataset", "", "0" * 16):
        answer = restore(of_one, CASE, odd)
        assert answer.status_code == 410 and "is missing, which says what was accepted" in answer.json()["error"]
    kept.unlink()
    assert restore(of_one, CASE, key).status_code == 410
    assert np.array_equal(strokes_of(of_one, CASE), after)


def test_a_case_that_cannot_be_accepted_leaves_nothing(of_one, tmp_path, monkeypatch):
    place = tmp_path / "copy"
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    version = of_one.get(f"/api/cases/{CASE}").json()["version"]

    def full(path: Path, *_) -> None:
        if path.parent.name == "labelsTr":
            raise InputError("the disk is full")
        path.parent.mkdir(exist_ok=True)
        path.touch()

    monkeypatch.setattr("scribbleseg.draw.strokes.write_volume", full)
    answer = of_one.post(f"/api/cases/{CASE}/accept", headers={"if-match": f'"{version}"'})
    assert answer.status_code == 400 and "the disk is full" in answer.json()["error"]
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_a_case_without_strokes_is_restored_to_none(of_one):
    answer = accept(of_one, "case.2 a")
    assert np.sum(answer["drawn"]) == 40 * 36 * 3
    assert np.sum(restore(of_one, "case.2 a", answer["accepted"]).json()["drawn"]) == 0


def test_masks_are_exported_with_the_strokes_on_top(of_one, tmp_path):
    out = tmp_path / "masks"
    answer = of_one.post("/api/export", json={"folder": str(out), "reviewed": False})
    assert answer.json()["cases"] == ["case.0 a", "case.1 a", "case.2 a"]
    mask, label = (nibabel.load(place / f"{CASE}.nii.gz").get_fdata() for place in (out, tmp_path / "copy/labelsTr"))
    assert np.isin(mask, (0, 1, 2)).all() and np.array_equal(mask[label != 3], label[label != 3])
    again = of_one.post("/api/export", json={"folder": str(out), "reviewed": False})
    assert again.status_code == 400 and "not empty" in again.json()["error"]
    none = of_one.post("/api/export", json={"folder": str(tmp_path / "few"), "reviewed": True})
    assert none.status_code == 400 and "no reviewed case" in none.json()["error"] and not (tmp_path / "few").exists()
    assert of_one.put(f"/api/cases/{CASE}/reviewed", json={"reviewed": True}).status_code == 204
    few = of_one.post("/api/export", json={"folder": "few", "reviewed": True})  # beside the data set
    assert few.json() == {"cases": [CASE], "folder": str(tmp_path / "few")}
    assert [path.name for path in (tmp_path / "few").iterdir()] == [f"{CASE}.nii.gz"]


def test_a_second_update_starts_from_the_model_of_the_first_and_old_predictions_stay_until_then(of_one, tmp_path):
    session = Session(tmp_path / "copy")
    updater = Updater(session, TINY)
    run_here(updater, CASE)
    config = json.loads((session.work / "updates/2/run/config.json").read_text(encoding="utf-8"))
    assert (
        config["train"]["init"] == str(session.work / "updates/1/run")
        and session.predictions.number(session.case(CASE)) == 2
    )
    assert config["train"]["iterations"] == 2  # never more than it would be from the start
    shutil.copytree(session.work / "updates/1", session.work / "updates/0")
    updater.process, updater.last = subprocess.Popen(["true"]), Progress("training", 2)
    updater.process.wait()
    message = updater.progress().message
    assert updater.progress().phase == "done" and "Updated in" in message
    assert "in 0 % of the slices the background strokes enclose the structures" in message
    assert [path.name for path in session.predictions.updates()] == ["2", "1"]


def test_an_update_without_a_stroke_of_each_class_says_which(dataset):
    for path in (dataset / "labelsTr").iterdir():
        stored = nibabel.load(path)
        label = np.asanyarray(stored.dataobj).copy()
        label[label == 2] = 3
        nibabel.save(nibabel.Nifti1Image(label, stored.affine), path)
    answer = opened(dataset).post("/api/update", json={"case": CASE})
    assert answer.status_code == 400 and "nothing is drawn yet of: core." in answer.json()["error"]
    assert not (dataset / ".scribbleseg").exists()


def test_an_update_in_a_process_of_its_own_can_be_stopped_and_killed(dataset):
    session = Session(dataset)
    updater = Updater(session, TINY | {"iterations": 100_000})
    updater.start(CASE)
    with pytest.raises(InputError, match="is running already"):
        updater.start(CASE)
    wait(updater, {"training"})
    updater.stop()
    assert wait(updater, {"stopped"}) and session.predictions.number(session.case(CASE)) is None
    updater.start(CASE)
    os.kill(updater.process.pid, signal.SIGKILL)
    assert wait(updater, {"failed"}) and "ended by signal 9" in updater.progress().message
    assert session.predictions.number(session.case(CASE)) is None


def stubborn(dataset: Path) -> Updater:
    """An update whose process does not end on Ctrl-C."""
    updater = Updater(Session(dataset), TINY)
    code = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    updater.process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    updater.process.stdout.readline()
    updater.folder, updater.last = dataset / "1", Progress("training", 1)
    return updater


def test_a_second_ctrl_c_does_not_wait_for_the_training(dataset):
    updater, states = stubborn(dataset), []
    threading.Timer(0.2, lambda: states.append(updater.progress().phase)).start()
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        updater.stop()
    assert updater.process.returncode == -signal.SIGKILL and time.monotonic() - began < 5
    assert states == ["stopping"] and updater.progress().phase == "stopped"


def test_a_second_ctrl_c_still_completes_the_data_set(dataset, monkeypatch):
    def stop(updater, patience):
        raise KeyboardInterrupt

    completed = []
    server = SimpleNamespace(run=lambda sockets: None, force_exit=False)
    monkeypatch.setattr("scribbleseg.draw.server.make_server", lambda app, ending: server)
    monkeypatch.setattr(Updater, "stop", stop)
    monkeypatch.setattr(Session, "complete", lambda session: completed.append(session.place))
    with pytest.raises(KeyboardInterrupt):
        draw(Draw(dataset, no_browser=True))
    assert completed == [dataset]


def test_a_training_is_stopped_without_patience(dataset):
    updater, began = stubborn(dataset), time.monotonic()
    updater.stop(0)
    assert updater.process.returncode == -signal.SIGKILL and time.monotonic() - began < 5


def test_an_update_leaves_its_cores_to_the_page(dataset, monkeypatch):
    environments = []

    def begin(*words, env, **keywords):
        environments.append(env)
        return subprocess.Popen(["true"])

    monkeypatch.setattr("scribbleseg.draw.update.subprocess", SimpleNamespace(Popen=begin, PIPE=subprocess.PIPE))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    Updater(Session(dataset), TINY).start(CASE)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    Updater(Session(dataset), TINY).start(CASE)
    assert [environment["OMP_WAIT_POLICY"] for environment in environments] == ["passive", "active"]


@pytest.mark.parametrize(("step", "expected"), [(0.01, 900), (0.5, 480), (60, 50)])
def test_an_update_is_as_long_as_the_machine_allows(dataset, tmp_path, monkeypatch, step, expected):
    monkeypatch.setattr("scribbleseg.draw.work.time_step", lambda plan, machine: step)
    plan = plan_of(Train(dataset, tmp_path / "run", preset="fast"))
    assert affordable(plan, None, FIRST_SECONDS) == expected


def test_an_update_reads_the_cases_once_to_find_its_length(dataset, monkeypatch):
    updater, asked, read = Updater(Session(dataset)), [], []
    updater.folder = dataset / ".scribbleseg/draw/updates/1"
    updater._write(CASE, {name: TINY[name] for name in TINY if name != "iterations"}, FIRST_SECONDS)
    monkeypatch.setattr("scribbleseg.draw.work.FEWEST", 3)
    monkeypatch.setattr("scribbleseg.draw.work.time_step", lambda plan, machine: asked.append(plan) or FIRST_SECONDS)
    monkeypatch.setattr("scribbleseg.training.fit.fit", lambda *given, **how: read.append(1) or fit(*given, **how))
    assert work(updater.folder) == 0 and len(read) == 1
    [plan] = asked
    assert plan.fitted.plane and read_plan(updater.folder / "run")[1].recipe.iterations == 3


def test_an_update_says_what_it_reads_and_learns_before_the_training(dataset):
    updater = Updater(Session(dataset), TINY)
    updater.folder = dataset / "update"
    updater.folder.mkdir()
    (updater.folder / "job.json").write_text('{"images": {}}', encoding="utf-8")
    for text, expected in (
        ("", ""),
        (
            "a warning: of 3\nlooking at strokes: 1/4 cases, 7.70 cases/s\n",
            "looking at strokes: 1/4 cases, 7.70 cases/s",
        ),
        (
            "fitting: 4/4 cases\nlearning where rings lie: 41/170 it, 48 s left\nodd\n",
            "learning where rings lie: 41/170 it, 48 s left",
        ),
    ):
        (updater.folder / "output.log").write_text(text, encoding="utf-8")
        updater.folder = updater.folder.rename(updater.folder.with_name("1"))
        assert updater._running() == Progress("starting", 1, message=expected)


def test_a_later_update_has_less_time(updated, tmp_path, monkeypatch):
    place = shutil.copytree(updated, tmp_path / "data", symlinks=True)
    begun = SimpleNamespace(Popen=lambda *_, **__: subprocess.Popen(["true"]), PIPE=subprocess.PIPE)
    monkeypatch.setattr("scribbleseg.draw.update.subprocess", begun)
    found = []
    for training in (None, TINY):
        updater = Updater(Session(place), training)
        updater.start("case.1 a")
        job = json.loads((updater.folder / "job.json").read_text(encoding="utf-8"))
        found.append((job["seconds"], job["train"]["iterations"], "init" in job["train"]))
    assert found == [(NEXT_SECONDS, 300, True), (None, TINY["iterations"], True)]


def test_predictions_of_a_stopped_update_do_not_count(dataset):
    session = Session(dataset)
    updater = Updater(session, TINY)
    updater.start(CASE)
    wait(updater, {"done"})
    updater.start(CASE)
    place = updater.folder / "uncertainty"
    place.mkdir(exist_ok=True)
    (place / f"{CASE}.json").write_text("[0]", encoding="utf-8")
    assert session.predictions.number(session.case(CASE)) == 2
    updater.stop()
    assert wait(updater, {"stopped"}) and session.predictions.number(session.case(CASE)) == 1


PREDICTS = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
for case in ("case.0 a", "case.1 a"):
    (folder / "uncertainty").mkdir(exist_ok=True)
    (folder / "uncertainty" / f"{case}.json").write_text("[0]")
print(flush=True)
time.sleep(60)
"""  # an update that has predicted two of three cases


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_predictions_of_an_update_that_is_ended_while_it_predicts_do_not_count(
    updated, tmp_path, monkeypatch, number
):
    def begin(words: list[str], **more) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", PREDICTS, words[-1]], **more | {"stdout": subprocess.PIPE})

    place = shutil.copytree(updated, tmp_path / "data", symlinks=True)
    monkeypatch.setattr("scribbleseg.draw.update.subprocess", SimpleNamespace(Popen=begin, PIPE=subprocess.PIPE))
    session = Session(place)
    there, updater = client(session), Updater(session, TINY)
    updater.start(CASE)
    updater.process.stdout.readline()

    def numbers(session: Session) -> list[int | None]:
        return [row["prediction"] for row in session.describe()["cases"]]

    assert numbers(session) == [2, 2, 1]
    answer = there.post("/api/export", json={"folder": "masks", "reviewed": False})
    assert answer.status_code == 400 and "would be of two models" in answer.json()["error"]
    assert not (tmp_path / "masks").exists()
    updater.process.send_signal(number)
    updater.process.wait()
    assert (updater.folder / "uncertainty" / f"{CASE}.json").is_file()  # nobody has asked how it ended
    assert numbers(session) == numbers(Session(place)) == [1, 1, 1]
    there = opened(place)
    assert there.post("/api/export", json={"folder": "masks", "reviewed": False}).status_code == 200


def test_masks_that_are_exported_while_an_update_begins_to_predict_are_not_kept(of_one, tmp_path, monkeypatch):
    def other(path: Path, *_) -> None:
        path.touch()
        folder = tmp_path / "copy/.scribbleseg/draw/updates"
        if not (folder / "2").exists():
            shutil.copytree(folder / "1", folder / "2", symlinks=True)

    monkeypatch.setattr("scribbleseg.draw.export.write_volume", other)
    answer = of_one.post("/api/export", json={"folder": "masks", "reviewed": False})
    assert answer.status_code == 400 and "would be of two models" in answer.json()["error"]
    assert not (tmp_path / "masks").exists()


def test_old_updates_are_deleted_but_no_last_prediction_of_a_case(of_one, tmp_path):
    place = tmp_path / "copy"
    folder = place / ".scribbleseg/draw/updates"
    for number in ("0", "2", "3", "4", "5"):  # case.2 has its last prediction in 2; 4 was stopped, 0 may be running
        shutil.copytree(folder / "1", folder / number, symlinks=True)
    for number in ("3", "4", "5"):
        (folder / number / "uncertainty" / "case.2 a.json").unlink()
    for number in ("0", "4"):
        (folder / number / "failed.json").unlink()
    for path in (folder / "4", *(folder / "4").iterdir()):
        os.utime(path, (0, 0), follow_symlinks=False)
    os.utime(folder / "0", (0, 0))  # in which cases are being predicted
    updater = Updater(Session(place), TINY)
    updater.process, updater.last = subprocess.Popen(["true"]), Progress("predicting", 5)
    updater.folder = folder / "5"
    updater.process.wait()
    assert updater.progress().phase == "done"
    assert sorted(path.name for path in folder.iterdir()) == ["0", "2", "3", "5"]


def test_a_message_about_an_update_that_ended_says_nothing_that_is_not_so(of_one, dataset, tmp_path):
    for place, stays in ((dataset, ""), (tmp_path / "copy", " The model before it stays.")):
        updater = Updater(Session(place), TINY)
        updater.folder = place / ".scribbleseg/draw/updates/7"
        updater.folder.mkdir(parents=True)
        (updater.folder / "output.log").write_text("reading\nno strokes. Draw some.\n", encoding="utf-8")
        assert updater._ended(2).message == f"The update failed: no strokes. Draw some.{stays}"
        updater.stopped = True
        assert updater._ended(130).message == f"Stopped.{stays}"


def test_an_update_does_not_start_while_classes_change(dataset, monkeypatch):
    session = Session(dataset)
    monkeypatch.setattr(type(session.strokes), "current", False)
    monkeypatch.setattr(session, "refresh", lambda: None)
    updater = Updater(session, TINY)
    with pytest.raises(InputError, match="has added a class meanwhile"):
        updater.start(CASE)
    assert updater.process is None


def test_a_training_ends_with_its_server(dataset):
    numbers, own = FORK.Pipe(duplex=False)

    def serve() -> None:
        updater = Updater(Session(dataset), TINY | {"iterations": 100_000})
        updater.start(CASE)
        wait(updater, {"training"})
        own.send(updater.process.pid)
        time.sleep(60)

    server = FORK.Process(target=serve)
    server.start()
    assert numbers.poll(60)
    training = numbers.recv()
    server.kill()
    server.join()
    end = time.monotonic() + 30
    while time.monotonic() < end and Path(f"/proc/{training}").exists():
        state = Path(f"/proc/{training}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        if state == "Z":
            break
        time.sleep(0.1)
    else:
        assert not Path(f"/proc/{training}").exists()


# --- the verb


def test_a_taken_port_is_named():
    with listen(0) as taken, pytest.raises(InputError, match="cannot be used"):
        listen(taken.getsockname()[1])
    with pytest.raises(InputError, match="--port 99999: cannot be used"):
        listen(99999)


def test_the_port_of_the_last_server_is_taken_again_if_it_is_free(dataset):
    with listen(0) as taken:
        port = taken.getsockname()[1]
        with listen_again(port) as another:
            assert another.getsockname()[1] != port
    Session(dataset).remember(port)
    with listen_again(Session(dataset).port) as again:
        assert again.getsockname()[1] == port


def test_the_verb_serves_the_page_and_ends_with_ctrl_c(dataset):
    words = [sys.executable, "-m", "scribbleseg", "draw", str(dataset), "--no-browser", "--class", "square=red"]
    server = subprocess.Popen([*words, "--class", "core"], stderr=subprocess.PIPE, text=True)
    lines = [server.stderr.readline() for _ in range(3)]
    while "http" not in lines[-1]:
        lines.append(server.stderr.readline())
        assert lines[-1], lines
    address = lines[-1].split()[-1]
    import httpx2

    with httpx2.Client(follow_redirects=True) as browser:
        for _ in range(50):
            try:
                page = browser.get(address)
                break
            except httpx2.ConnectError:
                time.sleep(0.1)
        assert page.status_code == 200 and "<title>" in page.text
        base = address.partition("?")[0]
        session = browser.get(base + "api/session").json()
        assert session["classes"][1]["colour"] == "#ff0000"
        with browser.stream("GET", base + "api/events") as events:
            assert json.loads(next(events.iter_lines()).removeprefix("data: "))["phase"] == "idle"
        update = browser.post(base + "api/update", json={"case": CASE}, headers={"x-scribbleseg": session["id"]})
        assert update.json()["phase"] == "starting"
    server.send_signal(signal.SIGINT)
    assert server.wait(20) == 130
    stopped = "scribbleseg: stopped. The strokes are saved. Continue with the same command."
    assert server.stderr.read() == f"End with Ctrl-C.\n{STOPPING}\n{stopped}\n"


def test_blank_labels_replace_no_stroke_of_another_page_and_are_read_once(tmp_path, monkeypatch):
    folder = scans(tmp_path / "scans", ("RAS", "LPS"))
    one, other = open_session(folder, ("liver",)), open_session(folder)
    plane = np.full(one.strokes.shown(one.case("scan_RAS"), 0, 0)[0].shape, NOT_DRAWN, np.uint8)
    plane[3] = 1

    def drawn_meanwhile(label: Path, grid: Grid, ignore: int) -> None:
        if label.name.startswith("scan_RAS"):
            other.save_slice("scan_RAS", 0, plane.tobytes(), "none")
        write_blank(label, grid, ignore)

    monkeypatch.setattr("scribbleseg.draw.session.write_blank", drawn_meanwhile)
    one.complete()
    assert (label_ras(one.data, "scan_RAS") == 1).any() and (label_ras(one.data, "scan_LPS") == 2).all()
    assert not (one.work / "blank" / "scan_LPS.nii.gz").exists() and not (one.work / "labels.lock").exists()
    monkeypatch.setattr("scribbleseg.draw.session.read_scribble", lambda *_: pytest.fail("a blank label was read"))
    (one.place / "labelsTr" / "scan_RAS.nii.gz").unlink()
    again = open_session(one.place)
    assert again.made and again.overview["scan_LPS"].slices == [] and again.overview["scan_LPS"].version != "none"


def test_a_stroke_just_after_a_blank_label_appears_is_seen(tmp_path, monkeypatch):
    folder = scans(tmp_path / "scans", ("RAS",))
    one, other = open_session(folder, ("liver",)), open_session(folder)
    plane = np.full(one.strokes.shown(one.case("scan_RAS"), 0, 0)[0].shape, NOT_DRAWN, np.uint8)
    plane[3] = 1
    real = os.link

    def link_and_draw(made: Path, path: Path) -> None:
        real(made, path)
        other.save_slice("scan_RAS", 0, plane.tobytes(), other.strokes.shown(other.case("scan_RAS"), 0, 0)[1])

    monkeypatch.setattr("os.link", link_and_draw)
    one.complete()
    assert open_session(one.place).overview["scan_RAS"].slices == [0]


def test_an_image_that_cannot_be_read_is_named_at_the_end(tmp_path, capsys):
    folder = scans(tmp_path / "scans", ("RAS", "LPS"))
    session = open_session(folder, ("liver",))
    broken = folder / "scan_LPS.nii.gz"
    broken.write_bytes(broken.read_bytes()[:200])
    session.complete()
    said = f"{session.place}: no label for images that cannot be read: scan_LPS\n"
    assert capsys.readouterr().err.count(said) == 1
    assert [path.name for path in (session.place / "labelsTr").iterdir()] == ["scan_RAS.nii.gz"]
    assert json.loads((session.place / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2


def test_labels_that_cannot_be_written_at_the_end_are_an_error(tmp_path, monkeypatch):
    session = open_session(scans(tmp_path / "scans", ("RAS", "LPS")), ("liver",))
    labels, replace = session.place / "labelsTr", os.replace

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(source: Path, target: Path) -> None:
        if Path(target).parent == labels:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(source), None, str(target))
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(InputError, match="No space left on device.*Free some space"):
        patch.setattr("os.fsync", full)
        session.complete()
    with monkeypatch.context() as patch, pytest.raises(InputError, match="labelsTr.*Permission denied.*permissions"):
        patch.setattr("os.link", refuse)
        patch.setattr("os.replace", refuse)
        session.complete()
    assert not [*labels.glob("*")] and not [*(session.work / "blank").iterdir()] and not session.blank
    session.complete()
    assert len([*labels.iterdir()]) == 2


def test_a_page_that_stays_open_saves_on_after_another_was_closed(tmp_path):
    folder = scans(tmp_path / "scans", ("RAS",))
    open_page = open_session(folder, ("liver",))
    scan(folder / "scan_LPS.nii.gz", "LPS")
    open_session(folder).complete()
    assert json.loads((open_page.place / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2
    _, version = open_page.strokes.shown(open_page.case("scan_RAS"), 0, 0)
    plane = np.full(open_page.strokes.shown(open_page.case("scan_RAS"), 0, 0)[0].shape, 1, np.uint8)
    assert open_page.save_slice("scan_RAS", 0, plane.tobytes(), version).counts[0, 1] == plane.size


def test_a_page_that_stays_open_draws_on_a_case_that_got_a_blank_label_at_the_end(tmp_path):
    folder = scans(tmp_path / "scans", ("RAS",))
    before = open_session(folder, ("liver",))
    shown, version = before.strokes.shown(before.case("scan_RAS"), 0, 0)
    before.complete()
    again, plane = open_session(folder), np.full(shown.shape, 1, np.uint8)
    assert again.save_slice("scan_RAS", 0, plane.tobytes(), version).counts[0, 1] == plane.size
    with pytest.raises(Conflict):  # there are strokes now
        again.save_slice("scan_RAS", 0, plane.tobytes(), version)


def test_a_data_set_of_the_users_own_is_not_completed(dataset):
    (dataset / "labelsTr" / f"{CASE}.nii.gz").unlink()
    before = {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    open_session(dataset).complete()
    assert {path: path.read_bytes() for path in dataset.rglob("*") if path.is_file()} == before


def test_without_the_extra_the_message_says_what_to_install(dataset, monkeypatch):
    monkeypatch.delitem(sys.modules, "scribbleseg.draw.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'scribbleseg\[draw\]'"):
        draw(Draw(dataset))


def test_ctrl_c_on_a_folder_that_may_not_be_read_is_no_traceback(tmp_path, monkeypatch, capsys):
    def stop(config: Draw) -> None:
        raise KeyboardInterrupt

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("scribbleseg.draw.draw.draw", stop)
    monkeypatch.setattr(Path, "is_file", refuse)
    assert main(["draw", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "scribbleseg: stopped.\n"
