import shutil
from pathlib import Path

import pytest
from ship import CARD, ship

from unclip.checkpoint import read_index, write_index


@pytest.mark.parametrize("lacking", [None, "prior"])
def test_what_is_shipped_names_the_stages_it_has(
    lacking: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    trained, shipped = tmp_path / "trained", tmp_path / "shipped"
    shutil.copytree(tiny_model, trained)
    if lacking is not None:
        shutil.rmtree(trained / lacking)
        write_index(trained, read_index(trained).present(trained))
    ship(trained, shipped, "tiny")
    index = read_index(shipped)
    assert index.card == CARD
    assert index.folders() == read_index(trained).folders()
    assert sorted(index.folders()) == sorted(p.name for p in shipped.iterdir() if p.is_dir())
