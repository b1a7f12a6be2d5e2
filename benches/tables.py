"""What the measurements' tables have in common."""
import statistics


class Failed(Exception):
    pass


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}..{max(values):.2f})"


def replace_between(path, name, text):
    begin, end = f"<!-- {name}: made by `make bench` -->", f"<!-- {name}: end -->"
    old = path.read_text()
    if begin not in old or end not in old:
        raise Failed(f"{path}: no marks for {name}")
    path.write_text(old.split(begin)[0] + begin + "\n" + text + end + old.split(end)[1])
