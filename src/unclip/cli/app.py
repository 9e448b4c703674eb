"""The commands, put together."""

from cyclopts import App, Parameter

from unclip import __version__
from unclip.cli.generate import generate
from unclip.cli.import_weights import import_weights
from unclip.cli.info import info
from unclip.cli.train import train

app = App(
    name="unclip",
    help="unCLIP (DALL·E 2): draw images from text, and train the model that does.",
    version=f"unclip {__version__}",
    default_parameter=Parameter(negative_bool=(), negative_iterable=()),
    help_format="markdown",
)
app.command(generate)
app.command(train)
app.command(info)
app.command(import_weights, name="import")
