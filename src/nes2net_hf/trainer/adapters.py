"""Low-rank adapters in the encoder (LoRA, by peft), and models without them again."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .recipe import LoraRecipe, RecipeError

# WavLM hands the weights of these to torch's attention itself: adapters around them would never be called.
_BYPASSED_IN_WAVLM = {"q_proj", "k_proj", "v_proj", "out_proj"}


def add_adapters(model: nn.Module, recipe: LoraRecipe) -> None:
    """
    Puts adapters into the linear layers of the model's encoder whose names end with one of `targets`; of the encoder
    only they learn.

    Raises:
        RecipeError: peft is not installed, or no layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise RecipeError("model.lora needs peft: pip install 'nes2net_hf[lora]'.") from None
    encoder: Any = model.base_model.encoder  # type: ignore[union-attr]
    bypassed = _BYPASSED_IN_WAVLM & set(recipe.targets)
    if encoder.config.model_type == "wavlm" and bypassed:
        raise RecipeError(
            f"model.lora.targets: a WavLM encoder does not call {', '.join(sorted(bypassed))}: "
            "take intermediate_dense and output_dense."
        )
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=list(recipe.targets)
    )
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise RecipeError(f"model.lora.targets: {' '.join(str(error).split())[:200]}") from error
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in name)


def without_adapters(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's `weights` as those of one that never had adapters: each added to the layer that it is around."""
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach()
            plain[f"{name}.weight"] = plain[f"{name}.weight"] + delta.to(plain[f"{name}.weight"])
    return plain
