"""From ``(section, row, column)`` to bytes and back: modes, sections, blocks and statistics."""
