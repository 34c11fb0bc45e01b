"""What the recipes share: running commands, and writing tables into a README."""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BERTHA = ROOT / "target/release/bertha"


def run(*words):
    """The lines of JSON that a command prints; its complaint ends the recipe."""
    words = [str(word) for word in words]
    made = subprocess.run(words, capture_output=True, text=True)
    if made.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\n{made.stderr}")
    return [json.loads(line) for line in made.stdout.splitlines()]


def put_table(readme, text):
    """Writes a table between the two marks of a README."""
    before, rest = readme.read_text().split("<!-- table -->")
    _, after = rest.split("<!-- end of table -->")
    readme.write_text(f"{before}<!-- table -->\n{text}\n<!-- end of table -->{after}")
