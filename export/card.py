"""A model card from the facts that training kept in the weights."""

from __future__ import annotations

from torch import nn

from mobile_bilayer.student.network import Student


def model_card(student: Student, facts: dict[str, object]) -> str:
    """Markdown: what it is for, what it was trained on, what was measured. Metrics come from `facts`."""
    frame = sum(p.numel() for p in student.frame.parameters())
    encoder = sum(p.numel() for p in student.encoder.parameters())
    legs = "".join(
        f"- **Then mouths alone**: {leg['steps']} steps, {leg['windows']} windows of {leg['identities']} people, {leg['minutes']} minutes. "
        f"Between lips that part L1 {leg['validation']['l1_before']:.4f} -> {leg['validation']['l1_now']:.4f}, spread of greys against the "
        f"real one's {leg['validation']['spread_before']:.2f} -> {leg['validation']['spread_now']:.2f} (people kept out of training).\n"
        for leg in facts.get("mouth", [])
    )
    legs += "".join(
        f"- **Then made lean**: {leg['steps']} steps, {leg['pairs']} pairs of {leg['identities']} people, {leg['minutes']} minutes. "
        f"Its pictures are {leg['validation']['psnr_db']:.1f} dB from those before (people kept out of training).\n"
        for leg in facts.get("lean", [])
    )
    validation = ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in dict(facts.get("validation", {})).items())
    return f"""# Model card

A student of `mobile_bilayer`: an avatar encoder ({encoder / 1e6:.2f} M parameters, once a photo) and a frame network
({frame / 1e6:.2f} M parameters, every frame) that turn one photo and driving landmarks into the layers of a talking head.

- **Trained on**: {facts.get("clips", "?")} clips of {facts.get("identities", "?")} people, {facts.get("steps", "?")} steps,
  {facts.get("pairs", "?")} pairs of frames, {facts.get("minutes", "?")} minutes.
- **Validation** (people kept out of training; L1 of [0, 1]): {validation or "not measured"}.
{legs}- **Data and licence**: yours to fill in. Weights take over the limits of the data they were trained on.
- **Intended use**: animating photos of people who agreed to it. Pictures made with it carry an "AI-generated" tag.
"""


def foreign_card(network: nn.Module, module: str) -> str:
    """Of somebody else's network, of which nothing is known here."""
    frame, encoder = (sum(p.numel() for p in part.parameters()) for part in (network.frame, network.encoder))
    return f"""# Model card

A network of its own, from `{module}`, exported by `mobile_bilayer`: an avatar encoder ({encoder / 1e6:.2f} M parameters, once a
photo) and a frame network ({frame / 1e6:.2f} M parameters, every frame).

- **Trained on**, **validation**, **data and licence**: yours to fill in.
- **Intended use**: animating photos of people who agreed to it. Pictures made with it carry an "AI-generated" tag.
"""
