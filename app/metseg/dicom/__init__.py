"""DICOM: studies become cases, label maps become DICOM objects on the series that they came from."""
