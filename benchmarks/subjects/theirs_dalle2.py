"""DALLE2-pytorch's side: a training step of its decoder, by its own trainer."""

from typing import Any

import torch

# torchvision has no build here that knows its operators; importing it needs their names alone.
_OPERATORS = torch.library.Library("torchvision", "DEF")
for _signature in (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
):
    _OPERATORS.define(_signature)

from accelerate import Accelerator  # noqa: E402
from dalle2_pytorch import Decoder, DecoderTrainer, Unet  # noqa: E402

from subjects.random_weights import describe  # noqa: E402


class TrainingStep:
    """Forward, backward, clipping, AdamW, EMA of its 64 px decoder, with its README's options."""

    def __init__(self, dim: int, blocks: int, batch: int, precision: str = "no") -> None:
        unet = Unet(
            dim=dim,
            image_embed_dim=512,
            text_embed_dim=512,
            cond_dim=128,
            channels=3,
            dim_mults=(1, 2, 4, 8),
            num_resnet_blocks=blocks,
            cond_on_text_encodings=True,
        )
        decoder = Decoder(
            unet=(unet,),
            image_sizes=(64,),
            timesteps=1000,
            image_cond_drop_prob=0.1,
            text_cond_drop_prob=0.5,
        )
        self.trainer = DecoderTrainer(
            decoder,
            accelerator=Accelerator(mixed_precision=precision, cpu=True),
            lr=1e-4,
            wd=1e-2,
            max_grad_norm=0.5,
        )
        self.precision = precision
        self.images = torch.rand(batch, 3, 64, 64)
        self.embeddings = torch.nn.functional.normalize(torch.randn(batch, 512), dim=-1)
        self.texts = torch.randn(batch, 77, 512)

    def facts(self) -> dict[str, Any]:
        """What was built, and what it computes in."""
        computes = {"no": "float32", "bf16": "bfloat16"}[self.precision]
        unet = self.trainer.decoder.unets[0]
        return describe(unet) | {"batch": len(self.images), "computes_in": computes}

    def run(self) -> None:
        """Train on the same batch once more."""
        # Its trainer scales embeddings in place.
        self.trainer(
            self.images,
            image_embed=self.embeddings.clone(),
            text_encodings=self.texts,
            unet_number=1,
        )
        self.trainer.update(unet_number=1)
