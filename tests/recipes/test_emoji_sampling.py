import pytest
from try_sampling import TRIALS, changed

from unclip.presets import preset

DEFAULTS = preset("emoji").defaults


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_differs_from_the_defaults_in_what_it_says_alone(name: str) -> None:
    before = DEFAULTS.model_dump()
    after = changed(DEFAULTS, TRIALS[name]).model_dump()
    differing = {key for key in before if before[key] != after[key]}
    assert differing == set(TRIALS[name])
    for key in differing & {"prior", "decoder"}:
        fields = {name for name in before[key] if before[key][name] != after[key][name]}
        assert fields == set(TRIALS[name][key])
        assert {name: after[key][name] for name in fields} == TRIALS[name][key]
