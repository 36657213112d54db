"""What an MRC file contains: header, byte order, layout, geometry and extended header."""
