"""The page's script in Node.js with a document of a few lines: choices, keys, undo, download."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "experiments" / "rating.html"

BROWSER = """
const parts = {}, kept = {}, handlers = {};
let downloaded;
const part = () => ({ firstElementChild: {}, click() {} });
global.document = { getElementById: n => parts[n] || (parts[n] = part()), createElement: part };
global.localStorage = { getItem: k => kept[k] ?? null, setItem: (k, v) => { kept[k] = v } };
global.addEventListener = (name, act) => { handlers[name] = act };
global.Blob = class { constructor(pieces) { downloaded = pieces[0] } };
URL.createObjectURL = () => "blob:1";
URL.revokeObjectURL = () => {};
const press = key => handlers.keydown({ key, preventDefault() {} });
"""

PERSON = """
const seen = [[parts.caption.textContent, parts.left.firstElementChild.src]];
parts.left.onclick();
seen.push([parts.caption.textContent, parts.progress.textContent]);
press("Backspace");
press("ArrowRight");
parts.unsure.onclick();
seen.push([parts.question.textContent, parts.left.hidden]);
parts.save.onclick();
console.log(JSON.stringify({ seen, choices: JSON.parse(downloaded), kept: Object.values(kept) }));
"""

DATA = {
    "questions": {"caption": "Fits?", "photorealism": "Better?"},
    "items": [
        {
            "key": "0",
            "question": "caption",
            "caption": "a cat",
            "left": "A",
            "right": "B",
            "pictures": {"left": "l0", "right": "r0"},
        },
        {
            "key": "1",
            "question": "photorealism",
            "caption": "a dog",
            "left": "B",
            "right": "A",
            "pictures": {"left": "l1", "right": "r1"},
        },
    ],
}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_a_person_chooses_takes_back_and_downloads() -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = script.replace("/*DATA*/ null", json.dumps(DATA))
    run = subprocess.run(
        ["node", "-"], input=BROWSER + script + PERSON, capture_output=True, text=True, check=True
    )
    result = json.loads(run.stdout)
    assert result["seen"][0] == ["a cat", "l0"]
    assert result["seen"][1] == ["", "1 of 2"], "words are no hint when looks are compared"
    assert result["seen"][2][0].startswith("Done")
    assert result["seen"][2][1] is True
    chosen = [(c["choice"], c["left"], c["question"]) for c in result["choices"]]
    assert chosen == [("right", "A", "caption"), ("not sure", "B", "photorealism")]
    assert [json.loads(text) for text in result["kept"]] == [result["choices"]]
