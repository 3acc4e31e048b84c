"""A comparison made by hand: each number is another, so that none can stand in another's place."""

from __future__ import annotations

import math

import numpy as np

from qatexplorer.accuracy.records import CompareRow, Comparison, Lost, Scatter

CONV = CompareRow(
    path="conv1",
    kind="module",
    type="Conv2d",
    index=1,
    values=4096,
    sqnr_fake_quant_db=31.25,
    sqnr_int8_db=30.5,
    cosine_fake_quant=0.9991,
    cosine_int8=0.9988,
    mean_error_steps=0.27,
    max_error_steps=3.5,
    mean_steps=0.12,
    max_steps=1.0,
    agreement=0.91,
    kl=0.0021,
    step=0.05,
)
FAKE = CompareRow(
    path="conv1.activation_post_process",
    kind="fake quant",
    type="FusedMovingAvgObsFakeQuantize",
    owner="conv1",
    index=1,
    values=4096,
    sqnr_fake_quant_db=31.0,
    sqnr_int8_db=30.0,
    isolated_sqnr_db=35.75,
    clipped=0.02,
    clipping_error=0.0003,
    rounding_error=0.0004,
)
WEIGHT = CompareRow(
    path="conv1.weight_fake_quant",
    kind="weight",
    owner="conv1",
    index=1,
    sqnr_fake_quant_db=44.0,
    channels=(44.5, 40.25, math.inf, 43.0),
)
LATE = CompareRow(
    path="fc<1>",
    kind="module",
    type="Linear",
    index=7,
    call=1,
    values=10,
    sqnr_fake_quant_db=29.0,
    sqnr_int8_db=12.5,
    max_steps=9.0,
    agreement=0.5,
    cause="the <kernel> adds before it rounds.",
)
OUTPUT = CompareRow(path="output['boxes']", kind="output", index=8)
EQUAL = CompareRow(path="add", kind="operation", index=3, sqnr_int8_db=math.inf)
ROWS = (CONV, FAKE, WEIGHT, EQUAL, LATE, OUTPUT)

PICTURE = np.arange(48, dtype=np.float32).reshape(3, 4, 4)
COMPARISON = Comparison(
    rows=ROWS,
    batches=2,
    seconds=1.5,
    passes={"float": 2, "fake quant": 2, "int8": 2},
    scatter={
        ("conv1", 0): Scatter((0.0, 1.0, 2.0), (0.125, 1.5, 1.75), (0.0, 1.25, 2.0)),
        ("fc<1>", 1): Scatter((), (), ()),
    },
    lost=(
        Lost(17, 3, 3, 8, PICTURE[0]),
        Lost(40, 5, 5, 6, np.array([0.5, -1.25, 7.0])),
        Lost(41, 1, 1, 7, None),
    ),
    lost_total=3,
    evaluated=360,
    notes=("2 places <could> not be compared.",),
)
