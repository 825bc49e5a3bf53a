from pathlib import Path

from labctl.recording.reference import markdown

ROOT = Path(__file__).parents[3]
COMMAND = (
    'python -c "from pathlib import Path; '
    "from labctl.recording.reference import markdown; "
    "Path('docs/reference/record-layout.md').write_text("
    "markdown(), encoding='utf-8', newline='\\n')\""
)


def test_the_reference_page_is_current() -> None:
    page = ROOT / "docs" / "reference" / "record-layout.md"
    assert page.read_text(encoding="utf-8") == markdown(), f"Write it by: {COMMAND}"
