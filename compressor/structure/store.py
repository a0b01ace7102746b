"""The compact network on disk: plain weights and the plan, no pickle."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from compressor.errors import InputError
from compressor.structure.plan import Plan
from compressor.structure.surgery.shrink import shrink
from compressor.support.files import replacing

WEIGHTS, PLAN = "compact.safetensors", "plan.json"


def save_compact(model: nn.Module, plan: Plan, directory: str | Path) -> None:
    """Write `compact.safetensors` and `plan.json`.

    Args:
        model: The compact network, as `shrink` returned it or trained since.
        plan: The plan it was shrunk by.
        directory: Where to write; made if it does not exist.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = compressor.Plan.uniform(compressor.find_groups(model, torch.zeros(1, 4)), keep=0.5)
        >>> compressor.save_compact(compressor.shrink(model, plan), plan, "compact")
        >>> sorted(os.listdir("compact"))
        ['compact.safetensors', 'plan.json']
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().contiguous().clone() for name, t in model.state_dict().items()}
    with replacing(directory / WEIGHTS) as temporary:
        save_file(state, temporary)
    plan.save(directory / PLAN)


def load_compact(directory: str | Path, model: nn.Module) -> nn.Module:
    """Rebuild the compact network exactly.

    Args:
        directory: What `save_compact` wrote, or a run directory.
        model: The architecture with its original widths and any weights; left untouched.

    Returns:
        The compact network in evaluation mode.

    Raises:
        InputError: A file is missing or damaged, or belongs to another architecture.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> plan = compressor.Plan.uniform(compressor.find_groups(model, torch.zeros(1, 4)), keep=0.5)
        >>> compressor.save_compact(compressor.shrink(model, plan), plan, "compact")
        >>> fresh = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> small = compressor.load_compact("compact", fresh)
        >>> torch.equal(small[0].weight, model[0].weight[:4])
        True
    """
    directory = Path(directory)
    small = shrink(model, Plan.load(directory / PLAN))
    path = directory / WEIGHTS
    state = small.state_dict()  # it knows the versions of its layers, for which some layers ask
    state.clear()
    try:
        state.update(load_file(path))
        small.load_state_dict(state)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path), cure="run the compression again") from error
    except RuntimeError as error:
        cure = "give the architecture with its original widths"
        raise InputError(f"the weights do not fit the plan: {error}", where=str(path), cure=cure) from error
    return small.eval()
