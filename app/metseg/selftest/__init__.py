"""`metseg self-test`: does this installation, on this device, compute what it should?

A phantom made by code is segmented and compared with the label map that the bundle's maker got for it.
"""
