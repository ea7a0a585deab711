"""How the modules are written: each can be read at once."""

from pathlib import Path

import recon_pipeline

MOST_LINES = 250


def longer(folder: Path) -> dict[str, int]:
    """The modules below a folder that are too long, with their lines."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py")}
    assert lines, f"{folder} has no module"
    return {path.relative_to(folder).as_posix(): count for path, count in sorted(lines.items()) if count > MOST_LINES}


def test_no_module_is_longer_than_250_lines() -> None:
    assert longer(Path(recon_pipeline.__file__).parent) == {}


def test_a_module_of_251_lines_is_found(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    for count in (MOST_LINES, MOST_LINES + 1):
        (room / f"of_{count}.py").write_text("pass\n" * count)
    assert longer(tmp_path) == {"room/of_251.py": 251}
