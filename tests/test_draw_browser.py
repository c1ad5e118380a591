"""The drawing page in a real browser: from a bare folder to exported masks. Skipped where there is no Chromium."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
from drawing import ORIENTATIONS, TINY, label_ras, pretend_update, scan, scans, voxels_ras
from PIL import Image
from small import save, small_dataset

from scribbleseg.data.layout import read_dataset
from scribbleseg.draw.draw import listen, open_session
from scribbleseg.draw.server import make_app, make_server
from scribbleseg.draw.session import Session
from scribbleseg.draw.update import Progress, Updater

CHROMIUM = "/usr/bin/chromium" if os.path.exists("/usr/bin/chromium") else shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"),
]
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
NOT_DRAWN = 255
SAVED = "#saved:text-is('Saved')"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as player:
        started = player.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield started
        started.close()


@contextmanager
def served(session: Session, updater: Updater | None = None, port: int = 0):
    """The address of a server of this session."""
    listening = listen(port)
    port = listening.getsockname()[1]
    session.remember(port)
    updater = updater or Updater(session, TINY | {"size": 48})
    app = make_app(session, updater, "secret", port)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/?token=secret"
    finally:
        server.should_exit = True
        thread.join(30)
        updater.stop()


@contextmanager
def shown(browser, address: str, **keywords):
    """The page at an address. Afterwards no script may have failed, and nothing may have been asked of other places."""
    context = browser.new_context(viewport={"width": 1280, "height": 720}, **keywords)
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong, asked = [], []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    assert not wrong
    assert all(url.startswith(address.partition("?")[0]) or url.startswith("blob:") for url in asked)
    context.close()


def ready(page) -> None:
    page.wait_for_selector("body[data-ready]")


def place(page, column: float, row: float, rows: int, columns: int, spacing=(1.0, 1.0)) -> tuple[float, float]:
    """Where the centre of a pixel lies on the screen; the slice is fitted into the canvas."""
    box = page.locator("#canvas").bounding_box()
    width, height = columns * spacing[1], rows * spacing[0]
    scale = min(box["width"] / width, box["height"] / height)
    left, top = (box["width"] - width * scale) / 2, (box["height"] - height * scale) / 2
    return box["x"] + left + (column + 0.5) * spacing[1] * scale, box["y"] + top + (row + 0.5) * spacing[0] * scale


def stroke(page, points, rows: int, columns: int, spacing=(1.0, 1.0), saved: bool = True) -> None:
    """Draw along pixels (column, row)."""
    on_screen = [place(page, column, row, rows, columns, spacing) for column, row in points]
    page.mouse.move(*on_screen[0])
    page.mouse.down()
    for x, y in on_screen[1:]:
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    if saved:
        page.wait_for_selector(SAVED)


def go_to(page, slice_number: int) -> None:
    """Show a slice, counted from 1."""
    page.locator("#slice").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", slice_number - 1)
    page.wait_for_selector(f"#where:has-text('Slice {slice_number} of')")
    page.wait_for_timeout(150)


def open_case(page, name: str) -> None:
    page.locator("#cases button", has_text=name).click()
    page.wait_for_selector(f"#cases button[aria-current=true]:has-text('{name}')")
    page.wait_for_timeout(300)


def test_from_a_folder_to_masks(browser, tmp_path):
    folder, out = scans(tmp_path / "scans"), tmp_path / "masks"
    data_set = tmp_path / "scans_scribbles"
    grid = {"rows": 36, "columns": 40, "spacing": (1.5, 1.0)}
    with served(open_session(folder)) as address, shown(browser, address) as page:
        # classes, one of them with a name that would be HTML
        page.locator("#new-classes input[type=text]").fill("<img src=x onerror=alert(1)>")
        page.click("#add-class")
        page.locator("#new-classes input[type=text]").nth(1).fill("core")
        page.click("#name-classes button[type=submit]")
        ready(page)
        assert page.locator("#classes li").count() == 3 and page.locator("#classes img").count() == 0
        assert "<img" in page.locator("#classes").inner_text()
        assert page.locator("#update").is_disabled() and "Draw first: background" in page.inner_text("#update-text")

        # strokes in every orientation: one pixel wide, so that the voxels are known
        for _ in range(4):
            page.keyboard.press("[")
        for code in ORIENTATIONS:
            open_case(page, f"scan_{code}")
            go_to(page, 2)
            page.keyboard.press("1")
            stroke(page, [(5, 4), (12, 4)], **grid)
            page.keyboard.press("2")
            stroke(page, [(20, 10), (20, 18)], **grid)
            page.keyboard.press("0")
            stroke(page, [(30, 30), (35, 30)], **grid)
            stroke(page, [(5, 2), (5, 8)], **grid)  # crosses the first: it does not overwrite it
        expected = np.full((36, 40), NOT_DRAWN, np.uint8)
        expected[4, 5:13], expected[10:19, 20], expected[30, 30:36] = 1, 2, 0
        column = expected[2:9, 5]
        column[column == NOT_DRAWN] = 0
        dataset = read_dataset(data_set)
        for code in ORIENTATIONS:
            stored = np.where(label_ras(dataset, f"scan_{code}") == 3, NOT_DRAWN, label_ras(dataset, f"scan_{code}"))
            planes = [z for z in range(5) if (stored[:, :, z] != NOT_DRAWN).any()]
            assert len(planes) == 1
            assert np.array_equal(stored[::-1, ::-1, planes[0]].T, expected), code
            image = nibabel.load(data_set / "imagesTr" / f"scan_{code}_0000.nii.gz")
            assert np.array_equal(nibabel.load(data_set / "labelsTr" / f"scan_{code}.nii.gz").affine, image.affine)

        # undo across cases, redo
        page.keyboard.press("Control+z")
        page.wait_for_selector(SAVED)
        last = dataset.folder / "labelsTr" / f"scan_{ORIENTATIONS[-1]}.nii.gz"
        assert (voxels_ras(last) == 0).sum() == 6
        for _ in range(4):
            page.keyboard.press("Control+z")
            page.wait_for_timeout(250)
        page.wait_for_selector(SAVED)
        before = dataset.folder / "labelsTr" / f"scan_{ORIENTATIONS[-2]}.nii.gz"
        assert (voxels_ras(last) == 3).all() and (voxels_ras(before) == 0).sum() == 6
        for _ in range(5):
            page.keyboard.press("Control+Shift+z")
            page.wait_for_timeout(250)
        page.wait_for_selector(SAVED)
        assert (voxels_ras(last) == 0).sum() == (voxels_ras(before) == 0).sum() == 12

        # eraser, ring, copy
        page.keyboard.press("e")
        stroke(page, [(8, 4), (9, 4)], **grid)
        assert (voxels_ras(last) == 1).sum() == 6
        page.keyboard.press("r")
        page.wait_for_selector("#hint:has-text('outside is background')")
        go_to(page, 4)
        stroke(page, [(10, 10), (25, 10), (25, 25), (10, 25)], **grid)
        ring = voxels_ras(last)
        planes = [z for z in range(5) if (ring[:, :, z] != 3).any()]
        assert len(planes) == 2 and sorted((ring[:, :, z] == 0).sum() for z in planes) == [12, 60]
        go_to(page, 5)
        page.keyboard.press("c")
        page.wait_for_selector("#toasts p:has-text('Copied from slice 4. Erase what does not fit here.')")
        page.wait_for_selector(SAVED)
        assert (voxels_ras(last) == 0).sum() == 12 + 60 + 60

        # update: the overlay comes, the open case first
        page.click("#update")
        page.wait_for_selector("#toasts p:has-text('Updated in')", timeout=120_000)
        assert page.locator("#cases progress.unsure").count() == 4
        page.mouse.move(*place(page, 20, 20, **grid))
        page.wait_for_selector("#where:has-text('predicted:')")

        # look and correct
        page.click("#next")
        page.wait_for_selector("#toasts p:has-text('no strokes yet')")
        page.keyboard.press("u")
        page.keyboard.press("2")
        stroke(page, [(3, 30), (9, 30)], **grid)
        page.wait_for_timeout(200)
        page.keyboard.press("a")
        page.wait_for_timeout(400)
        page.wait_for_selector(SAVED)
        name = page.get_attribute("#cases button[aria-current=true]", "title")
        accepted = label_ras(dataset, name)
        full = [z for z in range(5) if (accepted[:, :, z] != 3).all()]
        assert len(full) == 1 and (accepted[::-1, ::-1, full[0]].T[30, 3:10] == 2).all()
        page.keyboard.press("v")
        page.wait_for_selector("#cases button[aria-current=true] .tick:text-is('✓')")

        # export
        page.click("#export")
        page.fill("#folder", str(out))
        page.click("#export-to button[type=submit]")
        page.wait_for_selector("#toasts p:has-text('Wrote 4 masks')")
        assert not (tmp_path / "scans" / "labelsTr").exists()
    for code in ORIENTATIONS:
        mask, label = voxels_ras(out / f"scan_{code}.nii.gz"), label_ras(dataset, f"scan_{code}")
        assert np.isin(mask, (0, 1, 2)).all() and np.array_equal(mask[label != 3], label[label != 3])
    assert not (data_set / "labelsTr_dense").exists()


def test_two_tabs_do_not_overwrite_each_other(browser, tmp_path):
    dataset = read_dataset(small_dataset(tmp_path / "data", cases=3))
    path = dataset.cases["case.0 a"].scribble
    before = np.asanyarray(nibabel.load(path).dataobj)
    with served(Session(dataset.folder)) as address, shown(browser, address) as one, shown(browser, address) as two:
        size = {}
        for page in (one, two):
            ready(page)
            case = page.evaluate(
                "async () => (await fetch('/api/cases/case.0%20a', {headers: {'X-Scribbleseg': '1'}})).json()"
            )
            plane = case["planes"][0]
            size = {"rows": case["shape"][plane["rows"]], "columns": case["shape"][plane["columns"]]}
            size["spacing"] = tuple(plane["spacing_mm"])
            page.keyboard.press("1")
            for _ in range(4):
                page.keyboard.press("[")
        stroke(one, [(1, 1), (4, 1)], **size)
        mine = np.asanyarray(nibabel.load(path).dataobj).copy()
        assert (mine != before).sum() == 4
        stroke(two, [(1, 33), (4, 33)], **size, saved=False)
        two.wait_for_selector("#ask[open] h2:has-text('changed elsewhere')")
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), mine)
        assert two.inner_text("#saved") == "Not saved"
        two.click("#ask button:has-text('add mine')")
        two.wait_for_selector(SAVED)
        two.wait_for_timeout(500)
        two.wait_for_selector(SAVED)
        both = np.asanyarray(nibabel.load(path).dataobj)
        assert (both != before).sum() == 8 and np.array_equal(both[mine != before], mine[mine != before])

        stroke(one, [(1, 5), (4, 5)], **size, saved=False)  # now the first tab is behind, and gives way
        one.wait_for_selector("#ask[open]")
        one.click("#ask button:text-is('Show theirs')")
        one.wait_for_selector(SAVED)
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), both)
        stroke(one, [(1, 5), (4, 5)], **size)
        assert (np.asanyarray(nibabel.load(path).dataobj) != before).sum() == 12


def test_a_class_that_another_tab_has_added_comes_with_the_next_stroke(browser, tmp_path):
    session = open_session(scans(tmp_path / "scans", ("RAS", "LPS")), ("liver",))
    with served(session) as address, shown(browser, address) as one, shown(browser, address) as two:
        for page in (one, two):
            ready(page)
        two.click("#more-classes")
        two.locator("#new-classes input[type=text]").fill("kidney")
        two.keyboard.press("Enter")
        two.wait_for_selector("#classes li >> nth=2")
        two.wait_for_timeout(500)
        open_case(two, "scan_RAS")
        two.keyboard.press("2")
        stroke(two, [(20, 20), (25, 20)], **GRID)
        assert one.locator("#classes li").count() == 2
        open_case(one, "scan_LPS")
        stroke(one, [(5, 5), (9, 5)], **GRID)
        one.wait_for_selector("#classes li >> nth=2")
        open_case(one, "scan_RAS")
        one.mouse.move(*place(one, 22, 20, **GRID))
        one.wait_for_selector("#where:has-text('drawn: kidney')")


def test_a_server_that_is_away_loses_no_stroke(browser, tmp_path):
    dataset = read_dataset(small_dataset(tmp_path / "data", cases=3))
    path = dataset.cases["case.0 a"].scribble
    before = np.asanyarray(nibabel.load(path).dataobj)
    session, stack = Session(dataset.folder), ExitStack()
    updater = Updater(session)
    updater.progress = lambda: Progress("training", 1, 100, 900, 400)
    address = stack.enter_context(served(session, updater))
    with stack, shown(browser, address) as page:
        ready(page)
        header = page.locator("header").bounding_box()
        page.keyboard.press("1")
        page.route("**/strokes/*", lambda route: route.abort() if route.request.method == "PUT" else route.fallback())
        box = page.locator("#canvas").bounding_box()
        middle = box["x"] + box["width"] / 2
        page.mouse.move(middle, box["y"] + 30)
        page.mouse.down()
        page.mouse.move(middle, box["y"] + 60, steps=4)
        page.mouse.up()
        page.wait_for_selector("#saved:text-is('Not saved')")
        page.wait_for_selector("#trouble:has-text('Not saved yet: case.0 a, slice')")
        assert page.locator("header").bounding_box() == header and page.locator("#canvas").bounding_box() == box
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), before)
        page.unroute("**/strokes/*")
        page.wait_for_selector(SAVED)
        drawn = np.asanyarray(nibabel.load(path).dataobj)
        assert (drawn != before).any() and not page.locator("#trouble").is_visible()

        # the server ends while an update runs: the page says so before the next stroke, and keeps those that follow
        page.wait_for_selector("#update-text:has-text('6:40 min left')")
        stack.close()
        page.wait_for_selector("#trouble:has-text('The server has ended')", timeout=5000)
        said = page.inner_text("#trouble")
        assert "All strokes are saved." in said and f"scribbleseg draw {dataset.folder}" in said
        assert "left" not in page.inner_text("#model")
        for name in ("#update", "#export", "#next", "#more-classes", "#cases button >> nth=1"):
            assert page.locator(name).is_disabled(), name
        assert page.locator("#classes input[type=color]").nth(1).is_disabled()
        assert page.inner_text("#update-text") == "No news from the server."
        assert page.locator("header").bounding_box() == header and page.locator("#canvas").bounding_box() == box
        drag(page, (middle + 30, box["y"] + 200), (middle + 60, box["y"] + 230))
        page.wait_for_selector("#trouble:has-text('Not saved yet: case.0 a, slice')")
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), drawn)
        port = int(address.split(":")[2].split("/")[0])
        with served(Session(small_dataset(tmp_path / "another", cases=3)), port=port):  # not there
            page.wait_for_selector("#trouble:has-text('Another data set is open at this address')")
            page.wait_for_timeout(2500)
            assert page.inner_text("#saved") == "Not saved"
        with served(Session(dataset.folder), port=port):
            page.wait_for_selector(SAVED)
            page.wait_for_selector("#trouble", state="hidden")
            assert (np.asanyarray(nibabel.load(path).dataobj) != drawn).any()
            page.wait_for_selector("#update-text:has-text('Trains on your strokes')")
            open_case(page, "case.1 a")


def test_a_stroke_goes_to_no_other_data_set_at_the_same_address(browser, tmp_path):
    mine, theirs = (small_dataset(tmp_path / name, cases=3) for name in ("mine", "theirs"))
    paths = [folder / "labelsTr" / "case.0 a.nii.gz" for folder in (mine, theirs)]
    for path in paths:
        path.unlink()  # so that both have the same version
    stack = ExitStack()
    address = stack.enter_context(served(Session(mine)))
    port = int(address.split(":")[2].split("/")[0])
    with stack, shown(browser, address) as page:
        ready(page)
        stack.close()
        page.wait_for_selector("#trouble:has-text('The server has ended'):has-text('All strokes are saved.')")
        with served(Session(mine), port=port):
            page.wait_for_selector("#trouble", state="hidden")
        with served(Session(theirs), port=port):
            page.wait_for_selector("#trouble:has-text('Another data set is open at this address')")
            box = page.locator("#canvas").bounding_box()
            x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            drag(page, (x, y), (x + 40, y))
            page.wait_for_selector("#trouble:has-text('Not saved yet: case.0 a, slice 2.')")
            assert page.locator("#undo").is_enabled() and page.locator("#redo").is_disabled()
            page.keyboard.press("Control+z")
            page.wait_for_selector("#undo:disabled")
            page.keyboard.press("Control+Shift+z")
            page.wait_for_selector("#redo:disabled")
            page.wait_for_timeout(2500)  # the page tries again meanwhile
            assert not paths[1].exists()
        with served(Session(mine), port=port):
            page.wait_for_selector(SAVED)
            assert (np.asanyarray(nibabel.load(paths[0]).dataobj) == 1).any() and not paths[1].exists()


def test_a_tablet_draws_with_a_finger_and_zooms_with_two(browser, tmp_path):
    dataset = read_dataset(small_dataset(tmp_path / "data", cases=3))
    path = dataset.cases["case.0 a"].scribble
    before = np.asanyarray(nibabel.load(path).dataobj)
    with served(Session(dataset.folder)) as address, shown(browser, address, has_touch=True) as page:
        ready(page)
        page.set_viewport_size({"width": 1024, "height": 768})
        page.wait_for_timeout(200)
        box = page.locator("#canvas").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        touch = page.context.new_cdp_session(page)

        def send(kind, *points):
            fingers = [{"x": x + dx, "y": y + dy, "id": number} for number, (dx, dy) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

        send("touchStart", (0, 0))
        send("touchMove", (30, 0))
        send("touchEnd")
        page.wait_for_timeout(300)
        page.wait_for_selector(SAVED)
        drawn = np.asanyarray(nibabel.load(path).dataobj)
        assert (drawn != before).any()
        send("touchStart", (0, 0))
        send("touchStart", (0, 0), (40, 0))
        send("touchMove", (-20, 0), (80, 0))
        send("touchEnd")
        page.wait_for_timeout(300)
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), drawn)  # two fingers draw nothing


@pytest.mark.parametrize("size", [(1280, 720), (1024, 768), (768, 1024)])
def test_nothing_overlaps_or_is_cut_off(browser, updated_small, size):
    with served(Session(updated_small)) as address, shown(browser, address) as page:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        ready(page)
        page.wait_for_timeout(200)
        boxes = {}
        for button in page.locator("header button, #left .foot button, #update").all():
            box = button.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= size[0] and box["y"] + box["height"] <= size[1]
            boxes[button.inner_text()] = box
        found = list(boxes.values())
        for index, one in enumerate(found):
            for other in found[index + 1 :]:
                apart = one["x"] + one["width"] <= other["x"] or other["x"] + other["width"] <= one["x"]
                apart |= one["y"] + one["height"] <= other["y"] or other["y"] + other["height"] <= one["y"]
                assert apart, (one, other)
        assert page.locator("#canvas").bounding_box()["height"] > 0.4 * size[1]
        page.keyboard.press("?")
        assert page.locator("#keys tr").count() > 25
        page.keyboard.press("Escape")
        assert page.locator("#keys[open]").count() == 0


@pytest.fixture(scope="module")
def updated_small(tmp_path_factory) -> Path:
    return small_dataset(tmp_path_factory.mktemp("page") / "data", cases=3)


def test_a_stroke_is_not_slow(browser, tmp_path):
    """A slice is redrawn well within a tenth of a second, also on a busy machine without a GPU."""
    folder = scans(tmp_path / "scans", ("LPS",))
    with served(open_session(folder, ("liver",))) as address, shown(browser, address) as page:
        ready(page)
        began = time.monotonic()
        stroke(page, [(5, 5), (30, 5), (30, 30), (5, 30)], 36, 40, (1.5, 1.0))
        assert time.monotonic() - began < 5


def test_a_server_that_is_killed_in_a_stroke_loses_nothing(browser, tmp_path):
    """The file stays whole, the page keeps the stroke, and saves it when the same command runs again."""
    dataset = read_dataset(small_dataset(tmp_path / "data", cases=3))
    path = dataset.cases["case.0 a"].scribble
    before = path.read_bytes()
    server, address = started(dataset.folder)
    with shown(browser, address) as page:
        ready(page)
        page.keyboard.press("1")
        box = page.locator("#canvas").bounding_box()
        middle = box["x"] + box["width"] / 2
        page.mouse.move(middle, box["y"] + 30)
        page.mouse.down()
        page.mouse.move(middle, box["y"] + 60, steps=4)
        server.kill()
        server.wait()
        page.mouse.move(middle, box["y"] + 90, steps=4)
        page.mouse.up()
        page.wait_for_selector("#saved:text-is('Not saved')")
        page.wait_for_selector("#trouble:has-text('The server has ended')")
        assert path.read_bytes() == before
        server, again = started(dataset.folder)
        try:
            assert again.partition("?")[0] == address.partition("?")[0]  # the port of before
            page.wait_for_selector("#trouble:has-text('Open the address that it has printed')")
            page.context.new_page().goto(again)  # as the command does; its cookie is the first page's too
            page.wait_for_selector(SAVED)
            assert (np.asanyarray(nibabel.load(path).dataobj) == 1).sum() > 42
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()


def started(folder: Path) -> tuple[subprocess.Popen, str]:
    """The command in a process of its own, and the address that it prints."""
    words = [sys.executable, "-m", "scribbleseg", "draw", str(folder), "--no-browser"]
    server = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if "http" in line:
            return server, line.split()[-1]
    raise AssertionError("no address")


def test_an_update_that_is_stopped_or_killed_leaves_everything_as_it_was(browser, tmp_path):
    session = Session(small_dataset(tmp_path / "data", cases=3))
    path = session.strokes.path(session.case("case.0 a"))
    updater = Updater(session, TINY | {"iterations": 10_000})
    with served(session, updater) as address, shown(browser, address) as page:
        ready(page)
        page.click("#update")
        assert page.locator("#update").is_disabled()
        page.wait_for_selector("#update-text:has-text('left. You can go on drawing.')", timeout=90_000)
        assert page.locator("#bar").is_visible()
        before = path.read_bytes()
        page.keyboard.press("2")
        box = page.locator("#canvas").bounding_box()
        drag(page, (box["x"] + 300, box["y"] + 30), (box["x"] + 340, box["y"] + 60))
        page.wait_for_selector(SAVED)
        drawn = path.read_bytes()
        assert drawn != before
        page.click("#stop")
        page.wait_for_selector("#update-text:text-is('Stopped.')")
        page.click("#update")
        page.wait_for_selector("#update-text:has-text('left.')", timeout=90_000)
        os.kill(updater.process.pid, signal.SIGKILL)
        page.wait_for_selector("#update-text.bad:has-text('ended by signal 9.')")
        assert not page.locator("#update").is_disabled() and not page.locator("#stop").is_visible()
        assert path.read_bytes() == drawn and session.predictions.number(session.case("case.0 a")) is None
        drag(page, (box["x"] + 300, box["y"] + 90), (box["x"] + 340, box["y"] + 120))
        page.wait_for_selector(SAVED)
        assert path.read_bytes() != drawn


def drag(page, start, end, **keywords) -> None:
    page.mouse.move(*start)
    page.mouse.down(**keywords)
    page.mouse.move(*end, steps=6)
    page.mouse.up(**keywords)


def colour_at(page, column: float, row: float, **grid) -> list[int]:
    """Red, green and blue that the canvas shows there."""
    box = page.locator("#canvas").bounding_box()
    x, y = place(page, column, row, **grid)
    return page.evaluate(
        "([x, y]) => [...document.querySelector('#canvas').getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)",
        [int(x - box["x"]), int(y - box["y"])],
    )


GRID = {"rows": 36, "columns": 40, "spacing": (1.5, 1.0)}


def test_slices_window_zoom_and_values(browser, tmp_path):
    session = open_session(scans(tmp_path / "scans", ("RAS",)), ("liver",))
    ras = voxels_ras(tmp_path / "scans" / "scan_RAS.nii.gz")
    with served(session) as address, shown(browser, address) as page:
        ready(page)
        where = page.locator("#where")

        def on(number: int) -> None:
            page.wait_for_selector(f"#where:has-text('Slice {number} of 5')")

        on(3)
        page.keyboard.press("ArrowDown")
        on(4)
        page.keyboard.press("PageUp")
        on(1)
        page.mouse.move(*place(page, 20, 18, **GRID))
        page.mouse.wheel(0, 120)
        on(3)
        go_to(page, 2)
        strip = page.locator("#strip").bounding_box()
        page.mouse.click(strip["x"] + 0.9 * strip["width"], strip["y"] + 8)
        on(5)

        # the value under the pointer: columns from the patient's right, rows from the front
        page.mouse.move(*place(page, 7, 5, **GRID))
        page.wait_for_selector("#where:has-text('column 8, row 6')")
        planes = [session.images.shown(session.case("scan_RAS"), 0, 0, index)[5, 7] for index in range(5)]
        assert f"column 8, row 6: {planes[4]}" in where.inner_text() and planes[4] in ras[32, 30]

        # the other planes: a click moves the slice
        side = page.locator("#side1").bounding_box()
        page.mouse.click(side["x"] + side["width"] / 2, side["y"] + side["height"] / 2)
        on(3)

        # window: right button, and the list
        window = where.inner_text().split("column")[0]
        drag(page, place(page, 5, 5, **GRID), place(page, 20, 10, **GRID), button="right")
        assert where.inner_text().split("column")[0] != window and page.input_value("#preset") == "Own"
        page.keyboard.press("i")
        assert page.input_value("#preset") == "Automatic"

        # zoom keeps the place under the pointer; space and dragging move; space alone fits
        x, y = place(page, 30, 8, **GRID)
        page.mouse.move(x, y)
        page.keyboard.down("Control")
        page.mouse.wheel(0, -240)
        page.keyboard.up("Control")
        page.mouse.move(x + 1, y)
        page.mouse.move(x, y)
        page.wait_for_selector("#where:has-text('column 31, row 9')")
        page.keyboard.down(" ")
        drag(page, (x, y), (x + 60, y))
        page.keyboard.up(" ")
        page.mouse.move(x + 61, y)
        page.mouse.move(x + 60, y)
        on(3)
        assert not (session.place / "labelsTr").exists()  # nothing of this has drawn
        page.keyboard.press(" ")
        page.mouse.move(*place(page, 7, 5, **GRID))
        page.wait_for_selector("#where:has-text('column 8, row 6')")


def test_every_part_of_the_page_follows_what_changes(browser, tmp_path):
    """Nothing is drawn or predicted at first; the case 1 and the channel 1 are brighter than the others."""
    folder = small_dataset(tmp_path / "data", cases=3, channels=2)
    for path in (folder / "imagesTr").iterdir():
        voxels = np.asanyarray(nibabel.load(path).dataobj)
        times = (5 if path.name.startswith("case.1") else 1) * (7 if path.name.endswith("_0001.nii.gz") else 1)
        save(path, np.int16(voxels * times))
    for path in (folder / "labelsTr").iterdir():
        path.unlink()
    session = Session(folder)
    names, updater = list(session.data.cases), Updater(session, TINY)
    plane = session.images.plane(session.case(names[0]), 0)
    grid = {"rows": (3, 36, 40)[plane.rows], "columns": (3, 36, 40)[plane.columns], "spacing": plane.spacing_mm}
    with served(session, updater) as address, shown(browser, address) as page:
        ready(page)

        def shows(*selectors: str) -> None:
            for selector in selectors:
                page.wait_for_selector(selector, timeout=5000)

        def side() -> str:
            page.wait_for_timeout(600)
            return page.evaluate("document.querySelector('#side1').toDataURL()")

        def grey_is_right(case: str, channel: int) -> None:
            page.wait_for_timeout(500)
            window = session.images.windows(session.case(case))[channel]
            value = int(session.images.shown(session.case(case), channel, 0, 1)[3, 3])
            grey = 255 * (value - window["low"]) / (window["high"] - window["low"])
            assert colour_at(page, 3, 3, **grid)[0] == pytest.approx(grey, abs=8)

        def strip_colour() -> list[int]:
            return page.evaluate(
                "() => { const strip = document.querySelector('#strip'); return [...strip.getContext('2d')"
                ".getImageData(strip.width / 2, strip.height / 5, 1, 1).data].slice(0, 3); }"
            )

        shows("#slice[max='2']", "#undo:disabled", "#redo:disabled", "#export:disabled", "#next:enabled")
        shows("#update-text:text-is('Draw first: background, square, core')", "#where:has-text('Slice 2 of 3')")
        assert page.input_value("#slice") == "1" and page.inner_text(".edge.left")
        assert page.locator("#classes li").count() == 3 and page.locator("#hint").is_hidden()
        page.click("[data-tool=ring]")
        shows("#hint", "[data-tool=ring][aria-checked=true]", "[data-tool=brush][aria-checked=false]")
        page.keyboard.press("2")
        shows(
            "#classes li:nth-child(3) button[aria-pressed=true]", "#classes li:nth-child(2) button[aria-pressed=false]"
        )
        page.keyboard.press("]")
        page.keyboard.press("f")
        shows("#fill[aria-pressed=true]", "#size-text:text-is('4')")

        # a stroke, undone and redone
        empty, held = strip_colour(), []
        page.route("**/strokes/1", lambda route: held.append(route))
        stroke(page, [(18, 12), (24, 12)], **grid, saved=False)
        shows("#saved:text-is('Saving…')")
        page.unroute("**/strokes/1")  # lets the one that is held go on
        shows(SAVED)
        shows("#update-text:text-is('Draw first: background, square')", "#cases li:first-child:has-text('1 slice')")
        shows("#export:enabled", "#undo:enabled", "#redo:disabled")
        assert strip_colour() == [0x4A, 0xA3, 0xFF] != empty
        drawn = side()
        page.keyboard.press("Control+z")
        shows("#undo:disabled", "#redo:enabled", "#cases li:first-child:has-text('nothing drawn')", "#export:disabled")
        assert side() != drawn
        page.keyboard.press("Control+Shift+z")
        shows("#undo:enabled", "#redo:disabled")

        # colours, and what is shown
        page.locator("#classes input[type=color]").nth(2).evaluate(
            "e => { e.value = '#12ff34'; e.dispatchEvent(new Event('change')); }"
        )
        page.wait_for_timeout(500)
        for dot in ("#classes li:nth-child(3) .dot", "#cases li:first-child .dot"):
            assert page.locator(dot).evaluate("e => e.style.background") == "rgb(18, 255, 52)"
        assert colour_at(page, 21, 12, **grid)[1] > 220
        page.keyboard.press("x")
        shows("#show-strokes[aria-pressed=false]")
        page.wait_for_timeout(200)
        assert len(set(colour_at(page, 21, 12, **grid))) == 1

        # channels and cases have their own windows
        grey_is_right(names[0], 0)
        page.keyboard.press("t")
        grey_is_right(names[0], 1)
        assert page.input_value("#channel") == "1" and page.input_value("#preset") == "Automatic"
        drag(page, place(page, 5, 5, **grid), place(page, 20, 10, **grid), button="right")
        assert page.input_value("#preset") == "Own"
        open_case(page, names[1])
        shows("#cases li:nth-child(2) button[aria-current=true]", "#cases li:first-child button[aria-current=false]")
        assert page.input_value("#preset") == "Automatic"
        grey_is_right(names[1], 1)

        # predictions, and a case that is reviewed
        pretend_update(
            session, 1, {name: np.ones((3, 36, 40)) for name in names}, dict.fromkeys(names, np.ones((3, 36, 40)))
        )
        updater.last = Progress("done", 1, message="Updated in 0.1 minutes.")
        shows("#toasts p:text-is('Updated in 0.1 minutes.')", "#accept-slice:enabled", "#next:enabled")
        shows("#cases li:nth-child(3) progress")
        page.click("#reviewed")
        shows(
            "#reviewed[aria-pressed=true]",
            "#cases li:nth-child(2) .tick:text-is('✓')",
            "#progress-text:has-text('1 reviewed')",
        )
        open_case(page, names[2])
        shows("#reviewed[aria-pressed=false]")
        go_to(page, 3)
        assert page.input_value("#slice") == "2"


def test_the_brush_is_round_in_mm_and_fill_and_overwrite_are_off_at_first(browser, tmp_path):
    session = open_session(scans(tmp_path / "scans", ("RAS",)), ("liver", "kidney"))
    case = session.data.cases["scan_RAS"]
    with served(session) as address, shown(browser, address) as page:
        ready(page)

        def drawn(value: int) -> np.ndarray:
            return session.strokes.shown(case, 0, 2)[0] == value

        for _ in range(9):
            page.keyboard.press("]")
        size = int(page.inner_text("#size-text"))
        page.keyboard.press("1")
        page.mouse.click(*place(page, 20, 18, **GRID))
        page.wait_for_selector(SAVED)
        rows, columns = np.nonzero(drawn(1))
        assert np.ptp(columns) + 1 == pytest.approx(size, abs=1) and (np.ptp(rows) + 1) * 1.5 == pytest.approx(
            size, abs=2
        )
        first = drawn(1)
        page.keyboard.press("2")
        page.mouse.click(*place(page, 20, 18, **GRID))
        page.wait_for_timeout(300)
        assert np.array_equal(drawn(1), first) and not drawn(2).any()
        page.keyboard.press("o")
        page.mouse.click(*place(page, 20, 18, **GRID))
        page.wait_for_timeout(300)
        page.wait_for_selector(SAVED)
        assert np.array_equal(drawn(2), first) and not drawn(1).any()

        for _ in range(20):
            page.keyboard.press("[")
        square = [(2, 2), (8, 2), (8, 8), (2, 8), (2, 2)]
        page.keyboard.press("1")
        stroke(page, square, **GRID)
        assert not drawn(1)[5, 5] and drawn(1)[2, 5]
        page.keyboard.press("Control+z")
        page.wait_for_timeout(300)
        page.wait_for_selector(SAVED)
        assert not drawn(1).any()
        page.keyboard.press("f")
        stroke(page, square, **GRID)
        assert drawn(1)[2:9, 2:9].all() and drawn(1).sum() == 49


def test_channels_ct_windows_and_a_class_that_is_added(browser, tmp_path):
    folder = tmp_path / "scans"
    for channel, offset in enumerate((-1000, 0)):
        scan(folder / f"anna_{channel:04d}.nii.gz", "RAS")
        stored = nibabel.load(folder / f"anna_{channel:04d}.nii.gz")
        nibabel.save(
            nibabel.Nifti1Image(np.asanyarray(stored.dataobj) + np.int16(offset), stored.affine), stored.get_filename()
        )
    session = open_session(folder, ("liver",))
    case = session.data.cases["anna"]
    with served(session) as address, shown(browser, address) as page:
        ready(page)
        assert page.input_value("#preset") == "Soft tissue" and "W 400  L 40" in page.inner_text("#where")
        assert page.locator("#preset option").all_inner_texts()[:3] == ["Automatic", "Soft tissue", "Liver"]
        page.select_option("#preset", "Lung")
        assert "W 1500  L -600" in page.inner_text("#where")
        value = int(session.images.shown(case, 0, 0, 2)[3, 3])
        page.wait_for_timeout(200)
        assert colour_at(page, 3, 3, **GRID)[0] == pytest.approx((value + 1350) / 1500 * 255, abs=8)
        page.keyboard.press("t")
        page.wait_for_timeout(500)
        assert page.input_value("#channel") == "1" and page.input_value("#preset") == "Automatic"
        page.mouse.move(*place(page, 3, 3, **GRID))
        page.wait_for_selector(f"#where:has-text('row 4: {session.images.shown(case, 1, 0, 2)[3, 3]}')")

        page.keyboard.press("1")
        stroke(page, [(5, 5), (9, 5)], **GRID)
        page.click("#more-classes")
        page.locator("#new-classes input[type=text]").fill("liver")
        page.keyboard.press("Enter")
        page.wait_for_selector("#name-classes .error:has-text('named twice')")
        page.locator("#new-classes input[type=text]").fill("<i>kidney")
        page.keyboard.press("Enter")
        page.wait_for_selector("#name-classes", state="hidden")
        page.wait_for_selector("#classes li >> nth=2")
        assert "<i>kidney" in page.inner_text("#update-text")
        assert "<i>kidney" in page.inner_text("#classes") and page.locator("#classes i").count() == 0
        page.wait_for_timeout(500)
        page.keyboard.press("2")
        stroke(page, [(5, 15), (9, 15)], **GRID)
        dataset = read_dataset(session.place)
        assert dataset.classes == ("background", "liver", "<i>kidney")
        label = label_ras(dataset, "anna")
        assert dict(zip(*np.unique(label, return_counts=True)))[3] > 7000  # not drawn
        assert (label == 1).sum() >= 5 and (label == 2).sum() >= 5


def test_a_coloured_picture_with_a_name_that_would_be_html(browser, tmp_path):
    pixels = np.zeros((36, 40, 3), np.uint8)
    pixels[:18], pixels[18:] = (200, 40, 90), (10, 220, 30)
    (tmp_path / "scans").mkdir()
    name = "<img src=x onerror=alert(1)>&'"
    Image.fromarray(pixels).save(tmp_path / "scans" / f"{name}.png")
    Image.fromarray(np.zeros((36, 420, 3), np.uint8)).save(tmp_path / "scans" / "wide.png")
    session = open_session(tmp_path / "scans", ("cell",))
    with served(session) as address, shown(browser, address) as page:
        ready(page)
        assert name in page.inner_text("#cases") and page.locator("#cases img").count() == 0
        grid = GRID | {"spacing": (1.0, 1.0)}
        assert page.locator("#slices").is_hidden() and page.inner_text("#size-text") == "3"
        open_case(page, "wide")
        assert page.inner_text("#size-text") == "5"  # so that no stroke is lost when slices are made smaller
        page.locator("#cases button", has_text=name).click()
        page.wait_for_selector("#size-text:text-is('3')")
        page.wait_for_timeout(300)
        assert colour_at(page, 20, 5, **grid) == [200, 40, 90] and colour_at(page, 20, 30, **grid) == [10, 220, 30]
        page.keyboard.press("t")
        page.wait_for_timeout(300)
        assert page.input_value("#channel") == "0" and len(set(colour_at(page, 20, 5, **grid))) == 1
        page.keyboard.press("1")
        stroke(page, [(5, 3), (12, 3)], **grid)
        label = np.array(Image.open(session.place / "labelsTr" / f"{name}.png"))
        assert (label[3, 5:13] == 1).all() and (label[25:] == 2).all()


def test_the_old_prediction_stays_until_the_new_one_has_come_and_the_least_sure_comes_first(browser, tmp_path):
    session = Session(small_dataset(tmp_path / "data", cases=3))
    names, shape = list(session.data.cases), (3, 36, 40)
    entropy = {name: np.full(shape, 0.1 + 0.1 * index) for index, name in enumerate(names)}
    entropy[names[1]][2] = 0.9
    for name in names:
        session.strokes.path(session.case(name)).unlink()
    session = Session(session.place)
    updater = Updater(session, TINY)
    pretend_update(session, 1, {name: np.full(shape, 1) for name in names}, entropy)
    with served(session, updater) as address, shown(browser, address) as page:
        ready(page)
        plane = session.images.plane(session.case(names[0]), 0)
        grid = {"rows": 36, "columns": 40, "spacing": plane.spacing_mm}
        grid |= {"rows": shape[plane.rows], "columns": shape[plane.columns]}
        page.locator("#opacity").evaluate("e => { e.value = 100; e.dispatchEvent(new Event('input')); }")
        page.wait_for_timeout(300)
        old = [0x1A, 0x80, 0xE6]
        assert colour_at(page, 9, 9, **grid) == old

        # a new prediction comes, slowly
        held = []
        page.route("**/prediction/**", lambda route: held.append(route))
        pretend_update(session, 2, {name: np.full(shape, 2) for name in names}, entropy)
        updater.last = Progress("done", 2, message="Updated in 0.1 minutes.")
        page.wait_for_timeout(1500)
        assert held and colour_at(page, 9, 9, **grid) == old
        page.unroute("**/prediction/**")  # lets those that are held go on
        page.wait_for_timeout(1000)
        assert colour_at(page, 9, 9, **grid) == [0xEE, 0x6B, 0xA6]
        page.keyboard.press("p")
        page.wait_for_timeout(200)
        grey = colour_at(page, 9, 9, **grid)
        assert len(set(grey)) == 1
        page.keyboard.press("u")
        page.wait_for_timeout(500)
        assert colour_at(page, 9, 9, **grid)[0] > grey[0]

        # what the model is least sure of
        page.select_option("#sort", "uncertain")
        assert page.locator("#cases .id").all_inner_texts() == [names[1], names[2], names[0]]
        page.keyboard.press("n")
        page.wait_for_selector("#toasts p:has-text('no strokes yet')")
        page.click(f"#cases button[title='{names[1]}']")
        page.wait_for_selector(f"#cases button[title='{names[1]}'][aria-current=true]")

        # accept the case, and take it back
        page.keyboard.press("A")
        page.click("#ask button:text-is('Accept')")
        page.wait_for_selector("#cases button[aria-current=true] .tick:text-is('✓')")
        page.wait_for_selector("#undo:enabled")
        page.wait_for_timeout(300)
        path = session.strokes.path(session.case(names[1]))
        assert (np.asanyarray(nibabel.load(path).dataobj) == 2).all()
        page.keyboard.press("Control+z")
        page.wait_for_timeout(700)
        assert (np.asanyarray(nibabel.load(path).dataobj) == 3).all()
        page.wait_for_selector("#cases button[aria-current=true] .tick:text-is('')", state="attached")

        # accept it twice, and take both back
        page.keyboard.press("1")
        stroke(page, [(5, 5), (12, 5)], **grid)
        drawn = np.asanyarray(nibabel.load(path).dataobj)
        for _ in range(2):
            page.keyboard.press("A")
            page.click("#ask button:text-is('Accept')")
            page.wait_for_selector("#cases button[aria-current=true] .tick:text-is('✓')")
            page.wait_for_timeout(500)
        assert (np.asanyarray(nibabel.load(path).dataobj) != 3).all()
        for reviewed in ("✓", ""):
            page.keyboard.press("Control+z")
            page.wait_for_timeout(700)
            page.wait_for_selector(f"#cases button[aria-current=true] .tick:text-is('{reviewed}')", state="attached")
        assert np.array_equal(np.asanyarray(nibabel.load(path).dataobj), drawn)
        page.keyboard.press("Control+Shift+z")
        page.wait_for_timeout(700)
        assert (np.asanyarray(nibabel.load(path).dataobj) != 3).all()


def test_the_prediction_of_an_update_that_is_stopped_goes_away_again(browser, tmp_path):
    session = Session(small_dataset(tmp_path / "data", cases=2))
    updater, shape = Updater(session, TINY), (3, 36, 40)
    for number, names in ((1, ("case.0 a", "case.1 a")), (2, ("case.0 a",))):
        labels, entropy = (dict.fromkeys(names, np.full(shape, value)) for value in (number, 0.5))
        pretend_update(session, number, labels, entropy)
    (session.work / "updates/2/failed.json").unlink()
    session.running = lambda: 2
    updater.last = Progress("predicting", 2, 1, 2)
    plane = session.images.plane(session.case("case.0 a"), 0)
    grid = {"rows": shape[plane.rows], "columns": shape[plane.columns], "spacing": plane.spacing_mm}
    with served(session, updater) as address, shown(browser, address) as page:
        ready(page)
        page.mouse.move(*place(page, 20, 5, **grid))
        page.wait_for_selector("#where:has-text('predicted: core')")
        session.running = lambda: None
        updater.last = Progress("stopped", 2, message="Stopped. The model before it stays.")
        page.wait_for_selector("#toasts p:has-text('Stopped.')")
        page.wait_for_timeout(300)
        page.mouse.move(*place(page, 21, 5, **grid))
        page.wait_for_selector("#where:has-text('predicted: square')")


def test_a_case_that_cannot_be_read_is_named_in_the_list(browser, tmp_path):
    folder = small_dataset(tmp_path / "data", cases=3)
    image = folder / "imagesTr" / "case.1 a_0000.nii.gz"
    with served(Session(folder)) as address, shown(browser, address) as page:
        ready(page)
        image.write_bytes(image.read_bytes()[:200])
        page.locator("#cases button", has_text="case.1 a").click()
        page.wait_for_selector("#cases li:nth-child(2) .error:has-text('cannot be read')")
        page.wait_for_selector("#toasts p:has-text('cannot be read')")
        assert page.get_attribute("#cases button[aria-current=true]", "title") == "case.0 a"
        open_case(page, "case.2 a")


def test_the_first_case_that_can_be_read_is_opened(browser, tmp_path):
    folder = small_dataset(tmp_path / "data", cases=3)
    images = sorted((folder / "imagesTr").iterdir())
    for image in images[:2]:
        image.write_bytes(image.read_bytes()[:200])
    with served(Session(folder)) as address, shown(browser, address) as page:
        ready(page)
        assert page.get_attribute("#cases button[aria-current=true]", "title") == "case.2 a"
        assert page.locator("#cases .error").count() == 2


def test_without_a_case_that_can_be_read_no_button_needs_one(browser, tmp_path):
    folder = small_dataset(tmp_path / "data", cases=2)
    for image in (folder / "imagesTr").iterdir():
        image.write_bytes(image.read_bytes()[:200])
    with served(Session(folder)) as address, shown(browser, address) as page:
        ready(page)
        for name in ("update", "accept-slice", "accept-case", "copy", "reviewed", "undo", "redo"):
            assert page.locator(f"#{name}").is_disabled(), name
        dialogs = "#help, #export, #more-classes"
        page.evaluate(f"""() => document.querySelectorAll("header button, aside button").forEach(
            (button) => button.matches("{dialogs}") || button.click())""")
        page.wait_for_timeout(500)
        assert not [said for said in page.locator("#toasts p").all_inner_texts() if "properties" in said]


def test_an_accepted_case_can_be_taken_back_after_others_have_drawn(browser, tmp_path):
    session = Session(small_dataset(tmp_path / "data", cases=2))
    name, shape = "case.0 a", (3, 36, 40)
    path, plane = session.strokes.path(session.case(name)), session.images.plane(session.case(name), 0)
    pretend_update(session, 1, {name: np.full(shape, 2)}, {name: np.full(shape, 0.5)})
    before = np.asanyarray(nibabel.load(path).dataobj)
    grid = {"rows": shape[plane.rows], "columns": shape[plane.columns], "spacing": plane.spacing_mm}
    with served(session) as address, shown(browser, address) as page:
        ready(page)
        page.keyboard.press("A")
        page.click("#ask button:text-is('Accept')")
        page.wait_for_selector("#cases button[aria-current=true] .tick:text-is('✓')")
        strokes, version = session.strokes.shown(session.case(name), 0, 2)
        theirs = strokes.copy()
        theirs[30, 1:5] = 1
        Session(session.place).save_slice(name, 2, theirs.tobytes(), version)
        page.keyboard.press("1")
        page.keyboard.press("o")
        stroke(page, [(5, 5), (12, 5)], **grid, saved=False)
        page.click("#ask button:text-is('Show theirs')")
        page.wait_for_selector(SAVED)
        page.wait_for_selector("#undo:enabled")
        page.keyboard.press("Control+z")
        page.wait_for_selector("#cases button[aria-current=true] .tick:text-is('')", state="attached")
        page.wait_for_timeout(300)
    after = np.asanyarray(nibabel.load(path).dataobj)
    assert (after != before).sum() == 4 and (after[after != before] == 1).all()


def test_a_case_that_takes_long_to_load_is_named_until_it_is_shown(browser, tmp_path):
    folder = small_dataset(tmp_path / "data", cases=2)
    loading = "getComputedStyle(document.querySelector('#stage'), '::after').visibility"
    with served(Session(folder)) as address, shown(browser, address) as page:
        ready(page)
        assert page.get_attribute("#stage", "data-loading") is None
        page.route("**/api/cases/case.1*", lambda route: None)
        page.locator("#cases button", has_text="case.1 a").click()
        page.wait_for_selector("#stage[data-loading='case.1 a']")
        assert page.evaluate(loading) == "hidden", "what is loaded at once does not flicker"
        page.wait_for_timeout(600)
        assert page.evaluate(loading) == "visible"
        page.unroute("**/api/cases/case.1*")
        page.wait_for_selector("#stage:not([data-loading])")
        assert page.get_attribute("#cases button[aria-current=true]", "title") == "case.1 a"


def test_after_a_pen_a_finger_moves_the_image(browser, tmp_path):
    session = open_session(scans(tmp_path / "scans", ("RAS",)), ("liver",))
    path = session.strokes.path(session.case("scan_RAS"))
    with served(session) as address, shown(browser, address, has_touch=True) as page:
        ready(page)
        page.keyboard.press("1")
        devices = page.context.new_cdp_session(page)
        x, y = place(page, 20, 18, **GRID)

        def pen(kind: str, dx: float, buttons: int) -> None:
            more = {"button": "left", "buttons": buttons, "pointerType": "pen", "clickCount": 1}
            devices.send("Input.dispatchMouseEvent", {"type": kind, "x": x + dx, "y": y, **more})

        pen("mousePressed", 0, 1)
        pen("mouseMoved", 40, 1)
        pen("mouseReleased", 40, 0)
        page.wait_for_timeout(200)
        page.wait_for_selector(SAVED)
        drawn = path.read_bytes()
        assert (voxels_ras(path) == 1).any()
        before = page.screenshot()
        for kind, points in (
            ("touchStart", [{"x": x, "y": y}]),
            ("touchMove", [{"x": x + 80, "y": y}]),
            ("touchEnd", []),
        ):
            devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(300)
        assert path.read_bytes() == drawn and page.screenshot() != before
