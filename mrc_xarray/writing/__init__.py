"""From labelled data to MRC and MRCZ files."""
