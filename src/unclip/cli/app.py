"""The commands, put together."""

from cyclopts import App, Parameter

from unclip import __version__
from unclip.cli.again import again
from unclip.cli.classify import attack, classify
from unclip.cli.embed import decode, embed
from unclip.cli.evaluate import evaluate
from unclip.cli.export import export
from unclip.cli.generate import generate
from unclip.cli.import_weights import import_weights
from unclip.cli.info import info
from unclip.cli.manipulate import (
    edit,
    inpaint,
    interpolate,
    mix,
    reconstruct,
    upscale,
    vary,
)
from unclip.cli.merge import merge
from unclip.cli.probe import neighbours, probe
from unclip.cli.sweep import sweep
from unclip.cli.train import train

app = App(
    name="unclip",
    help="unCLIP (DALL·E 2): draw images from text, and train the model that does.",
    version=f"unclip {__version__}",
    default_parameter=Parameter(negative_bool=(), negative_iterable=()),
    help_format="markdown",
)
app.command(generate)
app.command(vary)
app.command(interpolate)
app.command(mix)
app.command(edit)
app.command(inpaint)
app.command(upscale)
app.command(reconstruct)
app.command(embed)
app.command(decode)
app.command(sweep)
app.command(again)
app.command(train)
app.command(merge)
app.command(info)
app.command(import_weights, name="import")
app.command(export)
app.command(evaluate)
app.command(classify)
app.command(attack)
app.command(probe)
app.command(neighbours)
