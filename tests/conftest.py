"""Every test runs with the shapes in the signatures checked."""

import os

import torch
from jaxtyping import install_import_hook

install_import_hook("unclip", "beartype.beartype")
torch.set_num_threads(int(os.environ.get("UNCLIP_TEST_THREADS", "1")))
