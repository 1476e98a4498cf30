"""The lines of a table in Markdown, for tests of what stands in it."""


def table_lines(text):
    """[(row label, [cells])], in order, without the heading of the first table."""
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            label, *cells = [c.strip() for c in line.strip("|").split(" | ")]
            found.append((label, cells))
    return found[2:]


def table_cells(text):
    """{row label: [cells]}"""
    return dict(table_lines(text))
