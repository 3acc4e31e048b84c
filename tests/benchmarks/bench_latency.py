"""Latency as ``session.benchmark()`` shows it, against a bare timer and other runtimes.

    python -m tests.benchmarks.bench_latency [--model digits_cnn | resnet18] [--threads 1]

First: rounds of a bare ``torch.utils.benchmark.Timer`` of the very same modules and a benchmark of
the session, by turns; the median of the rounds' ratios is to be within 3 % (``--goal 0.03`` makes
that the exit code). Then the same model in onnxruntime (float, and int8 by ``quantize_static`` in
QDQ form) and in OpenVINO (both of these files), all timed by turns by the session's own machine.

``--clock cpu`` counts the CPU time of the process instead of the time on the wall: on a machine
that others use too, that is what the wall would show if they did not.

onnxruntime, onnx, onnxscript and openvino are needed for the second part only, which says so where
they are missing: ``pip install onnxruntime onnx onnxscript openvino``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer

import qatexplorer as qx
from qatexplorer.evaluate import measure
from qatexplorer.evaluate.measure import Case, time_by_turns
from qatexplorer.quantizers.cpu import cpu_facts
from tests.support.models import load_timm

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CPU = torch.device("cpu")


def session_of(name: str, size: int, batch: int) -> tuple[qx.Session, torch.Tensor]:
    """A session at its int8 stage, and its example input."""
    if name.startswith("digits"):
        example = qx.zoo.load(name)
        x = next(iter(example.data.eval))[0][:batch]
        session = qx.Session(example.model, x, data=example.data)
    else:
        model, x = load_timm(name, size, batch)
        session = qx.Session(model, x, flow="fx", data=([(x, torch.zeros(batch).long())],) * 2)
    session.goto(session.flow.train_stage)
    session.calibrate()
    session.goto(session.flow.int8_stage)
    return session, x


def against_a_bare_timer(session: qx.Session, x: torch.Tensor, options: Any) -> float:
    """Prints the ratios; returns the largest distance of a median from 1."""
    forms = {"float": session.copy_model("float").eval(), "int8": session.int8.eval()}
    clock, batch, engine = CLOCKS[options.clock], len(x), session.options.qconfig.backend
    shown: dict[str, list[float]] = {name: [] for name in forms}
    bare: dict[str, list[float]] = {name: [] for name in forms}

    def by_timer() -> dict[str, float]:
        before = torch.backends.quantized.engine
        torch.backends.quantized.engine = engine
        try:
            with torch.no_grad():
                return {
                    name: Timer(
                        "model(x)",
                        globals={"model": model, "x": x},
                        num_threads=options.threads,
                        timer=clock,
                    )
                    .blocked_autorange(min_run_time=options.seconds / 2)
                    .median
                    for name, model in forms.items()
                }
        finally:
            torch.backends.quantized.engine = before

    last = by_timer()
    for _ in range(options.rounds):
        made = session.benchmark(
            (batch,), seconds=options.seconds, threads=options.threads, compiled=False
        )
        now = by_timer()
        for name in forms:
            row = made.row(name, batch)
            assert row is not None
            assert row.latency is not None
            shown[name].append(row.latency.median_s)
            bare[name].append((last[name] + now[name]) / 2)
        last = now
    worst = 0.0
    print(
        f"session.benchmark() against a bare torch.utils.benchmark.Timer, {options.rounds} rounds"
    )
    for name in forms:
        ratios = [a / b for a, b in zip(shown[name], bare[name], strict=True)]
        middle = statistics.median(ratios)
        low, _, high = statistics.quantiles(ratios, n=4)
        worst = max(worst, abs(middle - 1))
        print(
            f"  {name:6} {statistics.median(shown[name]) * 1e3:8.3f} ms shown, "
            f"{statistics.median(bare[name]) * 1e3:8.3f} ms bare: {middle - 1:+.1%} "
            f"(middle half {low - 1:+.1%} to {high - 1:+.1%})"
        )
    return worst


def exported(model: nn.Module, x: torch.Tensor, folder: Path) -> tuple[Path, Path]:
    """The float model as ONNX, and quantized by onnxruntime: int8 weights and activations, QDQ."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    plain, ready, int8 = (folder / f"{name}.onnx" for name in ("float", "ready", "int8"))
    torch.onnx.export(
        model, (x,), str(plain), input_names=["x"], dynamo=True, external_data=False, verbose=False
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"x": x.numpy()}]

        def get_next(self) -> Any:
            return self.left.pop() if self.left else None

    quant_pre_process(str(plain), str(ready))
    quantize_static(str(ready), str(int8), Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return plain, int8


def in_onnxruntime(path: Path, threads: int) -> Callable[[Any], Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run
    return lambda given: run(None, {"x": given})


def in_openvino(path: Path, threads: int) -> Callable[[Any], Any]:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    # In float32, as torch computes: elsewhere it would take bfloat16 where the CPU has it.
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    return lambda given: request.infer({0: given}, share_inputs=True)


def beside_others(session: qx.Session, x: torch.Tensor, options: Any) -> None:
    """The same model in other runtimes, all by turns."""
    needed = ("onnx", "onnxruntime", "onnxscript", "openvino")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not beside other runtimes: {', '.join(missing)} not installed")
        return
    model, int8 = session.copy_model("float").eval(), session.int8.eval()
    given = x.numpy()
    with tempfile.TemporaryDirectory() as folder:
        plain, qdq = exported(model, x, Path(folder))
        others = {
            "onnxruntime float": in_onnxruntime(plain, options.threads),
            "onnxruntime int8 (QDQ)": in_onnxruntime(qdq, options.threads),
            "OpenVINO float": in_openvino(plain, options.threads),
            "OpenVINO int8 (QDQ)": in_openvino(qdq, options.threads),
        }
        cases = {"torch float": Case(model, x, CPU), "torch int8": Case(int8, x, CPU)}
        cases |= {name: Case(call, given, CPU) for name, call in others.items()}
        timed = time_by_turns(
            cases,
            repeats=1_000,
            budget_s=options.seconds * options.rounds,
            threads=options.threads,
            engine=session.options.qconfig.backend,
        )
    base = timed["torch float"].median_s
    print(f"the same model in other runtimes, {timed['torch float'].repeats} measurements by turns")
    for name, one in timed.items():
        print(
            f"  {name:24}{one.median_s * 1e3:9.3f} ms, spread {one.iqr_s * 1e3:7.3f} ms, "
            f"{base / one.median_s:5.2f} × torch float"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="digits_cnn")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each round's benchmark")
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--goal", type=float, default=0.0, help="largest distance, as 0.03")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(options.threads)
    measure.time = SimpleNamespace(perf_counter=CLOCKS[options.clock])  # type: ignore[assignment]
    session, x = session_of(options.model, options.size, options.batch)
    print(
        f"{options.model}, input {tuple(x.shape)}, {options.threads} thread(s), "
        f"clock {options.clock}, int8 engine {session.options.qconfig.backend}"
    )
    print(f"CPU {cpu_facts()['name']}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    worst = against_a_bare_timer(session, x, options)
    beside_others(session, x, options)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return int(bool(options.goal) and worst > options.goal)


if __name__ == "__main__":
    raise SystemExit(main())
