"""docs/figures/draw-*.png: the drawing page with the phantom, from a bare folder to a prediction.

    python docs/make_screenshots.py [FOLDER] [--iterations N]

Needs Chromium, and some minutes for the training. The strokes are those that the phantom's simulator draws, on four of
eight hearts, and a ring around each heart, as the ring tool draws it. A FOLDER that this script has filled already is
not trained again: only the prediction is shown anew.
"""

import argparse
import io
import shutil
import tempfile
import threading
import time
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from scipy.ndimage import binary_dilation

from scribbleseg.config import Phantom
from scribbleseg.data.synthetic.heart import CLASSES
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.draw.draw import listen, open_session
from scribbleseg.draw.server import make_app, make_server
from scribbleseg.draw.session import Session
from scribbleseg.draw.update import Updater

PLACE = Path(__file__).with_name("figures")
SIZE = {"width": 1280, "height": 720}
FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
DRAWN = ("heart001_ed", "heart001_es", "heart002_ed", "heart003_ed")
SHOWN = "heart004_es"  # without strokes
RING = 8  # pixels between a heart and its ring


def save(page: Page, name: str) -> None:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(96, Image.Quantize.FASTOCTREE).save(PLACE / f"draw-{name}.png", optimize=True)


def bare_folder(folder: Path) -> Path:
    """FOLDER/scans with eight hearts."""
    phantom(Phantom(folder / "phantom", cases=8))
    scans = folder / "scans"
    scans.mkdir()
    for path in (folder / "phantom" / "imagesTr").iterdir():
        shutil.copyfile(path, scans / path.name.replace("_0000", ""))
    return scans


def name_classes(page: Page) -> None:
    """The first dialog of a bare folder."""
    names = page.locator("#new-classes input[type=text]")
    for number, name in enumerate(CLASSES[1:]):
        if number:
            page.click("#add-class")
        names.nth(number).fill(name)
    save(page, "classes")
    page.click("#start")
    page.wait_for_selector("body[data-ready]")


def draw(session: Session, source: Path) -> None:
    """The strokes of four hearts and rings around them, as if they had been drawn in another tab."""
    for name in DRAWN:
        path = session.strokes.path(session.case(name))
        path.parent.mkdir(exist_ok=True)
        strokes = nibabel.load(source / "labelsTr" / path.name)
        label = np.asanyarray(strokes.dataobj).copy()
        heart = np.asanyarray(nibabel.load(source / "labelsTr_dense" / path.name).dataobj) > 0
        near = binary_dilation(heart, np.ones((3, 3, 1)), RING)
        label[binary_dilation(near, np.ones((3, 3, 1))) & ~near] = 0
        nibabel.save(nibabel.Nifti1Image(label, strokes.affine), path)


def open_case(page: Page, name: str, number: int) -> None:
    page.locator("#cases button", has_text=name).click()
    page.wait_for_selector(f"#cases button[aria-current=true]:has-text('{name}')")
    page.locator("#slice").evaluate("(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", number - 1)
    page.wait_for_timeout(1000)


def main(folder: Path, iterations: int | None) -> None:
    filled = (folder / "scans").is_dir()
    session = open_session(folder / "scans" if filled else bare_folder(folder))
    listening = listen(0)
    port = listening.getsockname()[1]
    updater = Updater(session, {"preset": "fast"} | ({"iterations": iterations} if iterations else {}))
    server = make_server(make_app(session, updater, "token", port))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=shutil.which("chromium"), headless=True, args=FLAGS)
        page = browser.new_page(viewport=SIZE)
        page.goto(f"http://127.0.0.1:{port}/?token=token")
        if not filled:
            name_classes(page)
            draw(session, folder / "phantom")
            page.reload()
        page.wait_for_selector("body[data-ready]")
        if not filled:
            open_case(page, DRAWN[0], 4)
            save(page, "strokes")
            began = time.monotonic()
            page.click("#update")
            page.wait_for_selector("#toasts p:has-text('Updated in')", timeout=3_600_000)
            print(f"update: {(time.monotonic() - began) / 60:.1f} minutes")
            page.wait_for_selector("#toasts p", state="detached")
        open_case(page, SHOWN, 4)
        save(page, "prediction")
        page.keyboard.press("u")
        page.keyboard.press("p")
        page.wait_for_timeout(1500)
        save(page, "unsure")
        browser.close()
    server.should_exit = True
    thread.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--iterations", type=int, help="less than the preset has")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        main(arguments.folder or Path(temporary), arguments.iterations)
