"""The published sizes of Kandinsky 2.2, by names and shapes alone."""

import kandinsky_small as small
import torch
from diffusers import PriorTransformer, UNet2DConditionModel

from unclip.decoder.conditioning import ImageEmbeddingConfig, NoTextConfig
from unclip.decoder.decoder import Decoder, DecoderConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.prior.diffusion_prior import DiffusionPrior, DiffusionPriorConfig
from unclip.weights.adm import diffusers_unet, diffusers_unet_config
from unclip.weights.kandinsky import IMAGE
from unclip.weights.prior_transformer import diffusers_prior, diffusers_prior_config
from unclip.weights.rename import renamed
from unclip.weights.tensors import Tensors


def test_the_unet() -> None:
    levels = ("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3)
    config = small.UNET | {
        "block_out_channels": (384, 768, 1152, 1536),
        "down_block_types": levels,
        "up_block_types": (*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"),
        "layers_per_block": 3,
        "encoder_hid_dim": 1280,
        "cross_attention_dim": 768,
        "attention_head_dim": 64,
        "sample_size": 64,
    }
    with torch.device("meta"):
        state = UNet2DConditionModel(**config).state_dict()
    assert len(state) == 724
    unet = diffusers_unet_config(config, "unet")
    image = ImageEmbeddingConfig(tokens=32, scale=1, null="stored", norm=True)
    network = DecoderNetworkConfig(unet=unet, embedding=1280, image=image, text=NoTextConfig())
    with torch.device("meta"):
        decoder = Decoder(DecoderConfig(network=network))
    rules = [*diffusers_unet(unet, "network.unet."), *IMAGE]
    moved = {k: v.shape for k, v in renamed(Tensors.of(state), rules, name="unet")}
    ours = {k: v.shape for k, v in decoder.state_dict().items()}
    assert ours.pop("network.image.stored.embedding") == (1280,)
    assert moved == ours
    parameters = sum(tensor.numel() for tensor in state.values())
    assert round(parameters / 1e6) == 1253


def test_the_prior() -> None:
    values = {"embedding_dim": 1280, "num_embeddings": 77, "num_layers": 20}
    values |= {"num_attention_heads": 32, "attention_head_dim": 64}
    with torch.device("meta"):
        state = PriorTransformer(**values).state_dict()
        network = diffusers_prior_config(values, "prior")
        prior = DiffusionPrior(DiffusionPriorConfig(network=network, scaling="standardised"))
    assert len(state) == 338
    moved = {k: v.shape for k, v in renamed(Tensors.of(state), diffusers_prior(), name="prior")}
    ours = {k: v.shape for k, v in prior.state_dict().items()}
    stored = ("network.unconditional.embedding", "network.unconditional.states", "posterior.mse")
    assert {name: ours.pop(name) for name in stored}["network.unconditional.states"] == (2, 1280)
    assert moved == ours
    assert round(sum(tensor.numel() for tensor in state.values()) / 1e6) == 1026
