"""Which engine runs the int8 model when the user names none, and what is wrong with one named."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Literal

from qatexplorer.errors import UnknownEngineError
from qatexplorer.quantizers.engine import available_engines
from qatexplorer.quantizers.engine_probe import FULL_CODES, EngineProbe, probe_engine
from qatexplorer.shown import listed

DEFAULT_QCONFIG = "onednn"
"""The name of torch's default QAT qconfig that trains on all codes 0..255, with one scale for each
output channel of a weight. It asks nothing of the engine of the same name."""

BACKENDS = ("x86", "fbgemm", "qnnpack", "onednn")
"""Names for which torch has a default QAT qconfig, whatever engines this machine has."""

_FASTEST_FIRST = ("onednn", "x86", "fbgemm", "qnnpack")
_FASTEST_FIRST_ON_ARM = ("qnnpack", "onednn")


@dataclass(frozen=True, slots=True)
class Backend:
    """What is used when nothing is named.

    Attributes:
        engine: runs the int8 model.
        qconfig: name of torch's default QAT qconfig that the model is trained with.
        reason: why, in sentences for the page.
    """

    engine: str
    qconfig: str
    reason: str


@dataclass(frozen=True, slots=True)
class EngineConcern:
    """Why int8 will not be what the fake quants simulate, whatever the model.

    Attributes:
        kind: ``"saturates"``, ``"fails"`` (the engine on this CPU) or ``"clamps"`` (the qconfig).
        message: what happens. fix: what to do about it.
    """

    kind: Literal["saturates", "fails", "clamps"]
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message} {self.fix}"


def default_backend() -> Backend:
    """Engine and qconfig to use when none is named: right before fast.

    1. The fastest engine whose int8 sums are those of integer arithmetic on all codes 0..255, as
       :func:`~qatexplorer.quantizers.engine_probe.probe_engine` finds on this CPU, with the
       qconfig that trains on all of them. The order is onednn, x86, fbgemm, qnnpack: on an x86 CPU
       qnnpack takes several times as long as the others, so it is the last (on ARM, for which it
       is made, the first). The model is trained in the same way on every machine.
    2. If there is none, the fastest whose sums are right on what its own qconfig trains on. x86
       and fbgemm halve the range of activations (``reduce_range``) for CPUs whose kernels add in
       16 bits. They come second because fake quants then clamp at 127 and int8 at 255.
    3. If there is none either, the fastest; :func:`engine_concern` says what is wrong with it.

    Raises UnknownEngineError if this build of torch has no engine.
    """
    probes: list[EngineProbe] = []
    for name in _engines_fastest_first():
        probe = probe_engine(name)
        if probe.holds(FULL_CODES):
            return Backend(name, DEFAULT_QCONFIG, _reason(name, probes))
        probes.append(probe)
    passed = _passed_over(probes)
    for probe in probes:
        if probe.verdict == "clamps":
            reason = f"{passed} {probe.engine} is right on the halved range that it trains on."
            return Backend(probe.engine, probe.engine, reason)
    return Backend(probes[0].engine, DEFAULT_QCONFIG, f"{passed} No engine here is right.")


def engine_concern(engine: str, highest: int, lowest: int) -> EngineConcern | None:
    """What is wrong with ``engine`` for a model whose fake quants clamp activations at ``lowest``
    to ``highest`` codes (255, or 127 under ``reduce_range``), None if nothing is known to be."""
    probe = probe_engine(engine)
    if probe.error:
        return EngineConcern(
            "fails", f"The int8 engine {engine} does not run here: {probe.error}.", _instead(engine)
        )
    if not probe.holds(highest):
        return EngineConcern(
            "saturates",
            f"The int8 engine {engine} saturates on this CPU: it adds in 16 bits and cuts off what "
            f"does not fit. Run on known sums it was {probe.error_at(highest):.0f} of 127 steps "
            "off. So int8 can be far from fake-quant, whatever the model and its training.",
            _instead(engine),
        )
    if probe.top is not None and lowest < min(probe.top, FULL_CODES):
        return EngineConcern(
            "clamps",
            f"Fake quants of this qconfig clamp at code {lowest} and int8 layers at {probe.top}: "
            "a value past the range that an observer has seen is clipped in training and not in "
            "int8.",
            f"qconfig={DEFAULT_QCONFIG!r} trains on all codes that int8 has.",
        )
    return None


def _engines_fastest_first() -> list[str]:
    engines = available_engines()
    if not engines:
        raise UnknownEngineError(
            "This build of torch has no quantized engine.",
            why="torch.backends.quantized.supported_engines is empty.",
            fix="Install torch's official wheel for your platform.",
        )
    on_arm = platform.machine().lower() in ("aarch64", "arm64")
    order = _FASTEST_FIRST_ON_ARM if on_arm else _FASTEST_FIRST
    known = [name for name in order if name in engines]
    return known + [name for name in engines if name not in known]


def _instead(engine: str) -> str:
    best = default_backend()
    if best.engine == engine:
        return "No engine here is better; trust the fake-quant model."
    if best.qconfig == DEFAULT_QCONFIG:
        return f"engine={best.engine!r} computes right here."
    return f"engine={best.engine!r} with qconfig={best.qconfig!r} computes right here."


def _reason(chosen: str, passed: list[EngineProbe]) -> str:
    parts = [f"{chosen} computes sums of all codes 0..255 right on this CPU."]
    if passed:
        parts.insert(0, _passed_over(passed))
    if chosen == "qnnpack" and "x86" in {probe.engine for probe in passed}:
        parts.append("It is slow on x86 CPUs; qconfig='x86' is faster, and clamps instead.")
    return " ".join(parts)


def _passed_over(probes: list[EngineProbe]) -> str:
    broken = [p.engine for p in probes if p.error]
    wrong = [p.engine for p in probes if not p.error]
    parts = []
    if wrong:
        verb = "saturates" if len(wrong) == 1 else "saturate"
        parts.append(f"On this CPU {listed(wrong, None)} {verb} on the full range of activations.")
    if broken:
        verb = "does" if len(broken) == 1 else "do"
        parts.append(f"{listed(broken, None)} {verb} not run.")
    return " ".join(parts)
