"""What people look at: lesions measured, pictures, tables, one HTML page, `run.json`. Nothing here decides a voxel.

label map (+ images, + members' votes) -> lesions -> CaseReport -> pictures, lesions.csv, cases.csv, report.html
"""
