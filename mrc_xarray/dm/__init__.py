"""What a file of Gatan's DigitalMicrograph (DM3, DM4) contains: tags, images, calibrations."""
