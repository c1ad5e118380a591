"""The importers of public data sets, by name, of folders of scans and labels, and of data sets without some labels."""

from ... import config
from ...core.errors import InputError
from .acdc import import_acdc
from .complete import import_complete
from .folders import import_folders
from .mscmr import import_mscmr
from .nci_isbi import import_nci_isbi
from .wsl4mis import import_wsl4mis

IMPORTERS = {"acdc": import_acdc, "wsl4mis": import_wsl4mis, "nci-isbi": import_nci_isbi, "dataset": import_complete}


def import_dataset(settings: config.Import) -> None:
    """Convert a data set to the nnU-Net raw layout.

    Raises InputError if `src` does not have the files of the source, for an option that the source does not take, and
    if `dst` exists already.
    """
    own = settings.source == "folders"
    needed = 2 if own else 1
    if len(settings.src) != needed:
        words = "IMAGES LABELS DST" if own else "SRC DST"
        raise InputError(
            f"import {settings.source} got {len(settings.src) + 1} folders; expected {words}. Correct the command."
        )
    if not own and (settings.classes or settings.not_drawn or settings.channels):
        raise InputError(f"import {settings.source} takes no --class, --not-drawn or --channel. Leave them out.")
    if settings.same_voxels and settings.source not in ("folders", "mscmr"):
        raise InputError(f"import {settings.source} takes no --same-voxels. Leave it out.")
    if own:
        import_folders(settings)
    elif settings.source == "mscmr":
        import_mscmr(settings.src[0], settings.dst, settings.same_voxels)
    else:
        IMPORTERS[settings.source](settings.src[0], settings.dst)
