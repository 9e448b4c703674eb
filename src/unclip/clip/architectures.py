"""The nine published CLIP architectures and unCLIP's own, by name (§5.1, §1.1)."""

from unclip.clip.clip import ClipConfig
from unclip.clip.resnet import ModifiedResNetConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.errors import OptionError


def _resnet(
    size: int, layers: tuple[int, int, int, int], width: int, embedding: int, text: int
) -> ClipConfig:
    image = ModifiedResNetConfig(size=size, layers=layers, width=width, heads=width // 2)
    return ClipConfig(image=image, text=_text(text), embedding=embedding)


def _vit(size: int, patch: int, width: int, depth: int, embedding: int, text: int) -> ClipConfig:
    image = ViTConfig(
        size=size,
        patch=patch,
        width=width,
        depth=depth,
        heads=width // 64,
        activation="quick_gelu",
    )
    return ClipConfig(image=image, text=_text(text), embedding=embedding)


def _text(width: int) -> TextConfig:
    return TextConfig(width=width, depth=12, heads=width // 64, activation="quick_gelu")


ARCHITECTURES: dict[str, ClipConfig] = {
    "RN50": _resnet(224, (3, 4, 6, 3), 64, 1024, 512),
    "RN101": _resnet(224, (3, 4, 23, 3), 64, 512, 512),
    "RN50x4": _resnet(288, (4, 6, 10, 6), 80, 640, 640),
    "RN50x16": _resnet(384, (6, 8, 18, 8), 96, 768, 768),
    "RN50x64": _resnet(448, (3, 15, 36, 10), 128, 1024, 1024),
    "ViT-B/32": _vit(224, 32, 768, 12, 512, 512),
    "ViT-B/16": _vit(224, 16, 768, 12, 512, 512),
    "ViT-L/14": _vit(224, 14, 1024, 24, 768, 768),
    "ViT-L/14@336px": _vit(336, 14, 1024, 24, 768, 768),
    "ViT-H/16": ClipConfig(
        image=ViTConfig(size=256, patch=16, width=1280, depth=32, heads=16),
        text=TextConfig(width=1024, depth=24, heads=16),
        embedding=1024,
    ),
}
"""OpenAI's weights need quick-GELU; of unCLIP's CLIP the paper does not tell, so GELU."""


def architecture(name: str) -> ClipConfig:
    """Look an architecture up.

    Raises:
        OptionError: if there is none of that name.
    """
    if name not in ARCHITECTURES:
        raise OptionError(f"no CLIP architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name]
