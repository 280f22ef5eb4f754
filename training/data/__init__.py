"""From a folder of cases to batches: split, prepared volumes on disk, crops, augmentation."""
