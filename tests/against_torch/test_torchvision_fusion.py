"""torchvision's quantizable models know what to fuse in them; what we find is the same."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import qatexplorer as qx
from tests.against_torch.reference import assert_same_state
from tests.support.models import declare_torchvision_operators

MODELS = (
    "googlenet",
    "inception_v3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet50",
    "shufflenet_v2_x0_5",
)


@pytest.mark.slow
def test_torchvision_can_be_imported_whether_its_operators_load_or_not() -> None:
    """In a process of its own: declaring operators that exist ends the interpreter."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    code = (
        "from tests.support.models import declare_torchvision_operators\n"
        "declare_torchvision_operators()\n"
        "declare_torchvision_operators()\n"
        "import torch, torchvision\n"
        "print(torchvision.__version__, hasattr(torch.ops.torchvision, 'nms'))\n"
    )
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, declared = done.stdout.split()
    # The installed package leaves out the suffix that names the CUDA release.
    assert version.partition("+")[0] == metadata.version("torchvision").partition("+")[0]
    assert declared == "True"


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_our_fusion_equals_fuse_model(name: str) -> None:
    declare_torchvision_operators()
    quantizable = pytest.importorskip(
        "torchvision.models.quantization", reason="torchvision is not installed"
    )
    torch.manual_seed(0)
    settings = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(quantizable, name)(weights=None, quantize=False, **settings).train()
    size = 75 if name == "inception_v3" else 64
    theirs = copy.deepcopy(model)
    theirs.fuse_model(is_qat=True)
    session = qx.Session(model, torch.randn(2, 3, size, size))
    session.goto("fuse")
    ours = session.model
    assert session.fusion
    assert [(n, type(m)) for n, m in ours.named_modules()] == [
        (n, type(m)) for n, m in theirs.named_modules()
    ]
    assert_same_state(ours, theirs)
