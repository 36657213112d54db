"""Metadata next to the pixels: columns with one value per section, sidecar files, scans."""
