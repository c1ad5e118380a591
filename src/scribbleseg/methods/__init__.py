"""The methods by name. A third party's method is named `package.module:Class`."""

METHODS = {
    "pce": "scribbleseg.methods.pce:PCE",
    "fullsup": "scribbleseg.methods.fullsup:FullSup",
    "effdnet": "scribbleseg.methods.effdnet:EFFDNet",
    "scn": "scribbleseg.methods.scn:SCN",
}
