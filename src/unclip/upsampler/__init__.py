"""Upsamplers: 64 → 256 → 1024 px, attention-free and unconditional (§1.6). Know no other stage."""
