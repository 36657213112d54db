"""RELION: the images that its STAR tables name."""
