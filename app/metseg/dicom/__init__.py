"""DICOM: series and their geometry, label maps as DICOM objects on them."""
