"""How many GPUs, vCPUs and GiB a machine type has, on all clouds: what quotas, costs and advice count with.

The clouds' documentation is the source (EC2 instance types, Compute Engine machine families, Azure VM sizes). A name
tells its family, so a GPU machine that is missing here is noticed and refused, not counted as one without GPUs.
"""

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from serving.errors import NotFound


class UnknownMachine(NotFound):
    code = "unknown_machine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    gpu: str
    """The model, as Google's price list and NVIDIA write it in short; empty without one."""
    gpus: int
    vcpus: int
    memory_gib: float


def _machines(gpu: str, rows: str) -> dict[str, Machine]:
    """`rows`: name, GPUs, vCPUs and GiB, separated by spaces, one machine a line."""
    parts = (line.split() for line in rows.strip().splitlines())
    return {n: Machine(gpu=gpu, gpus=int(g), vcpus=int(c), memory_gib=float(m)) for n, g, c, m in parts}


MACHINES: Final = MappingProxyType(
    _machines(
        "a100",
        """
        p4d.24xlarge 8 96 1152
        p4de.24xlarge 8 96 1152
        a2-highgpu-1g 1 12 85
        a2-highgpu-2g 2 24 170
        a2-highgpu-4g 4 48 340
        a2-highgpu-8g 8 96 680
        Standard_NC24ads_A100_v4 1 24 220
        Standard_NC48ads_A100_v4 2 48 440
        Standard_NC96ads_A100_v4 4 96 880
        Standard_ND96asr_v4 8 96 900
        Standard_ND96amsr_A100_v4 8 96 1900
        """,
    )
    | _machines(
        "h100",
        """
        p5.48xlarge 8 192 2048
        a3-highgpu-8g 8 208 1872
        Standard_NC40ads_H100_v5 1 40 320
        Standard_NC80adis_H100_v5 2 80 640
        Standard_ND96isr_H100_v5 8 96 1900
        """,
    )
    | _machines("h200", "p5e.48xlarge 8 192 2048\np5en.48xlarge 8 192 2048")
    | _machines(
        "a10g",
        """
        g5.xlarge 1 4 16
        g5.2xlarge 1 8 32
        g5.4xlarge 1 16 64
        g5.8xlarge 1 32 128
        g5.12xlarge 4 48 192
        g5.16xlarge 1 64 256
        g5.24xlarge 4 96 384
        g5.48xlarge 8 192 768
        """,
    )
    | _machines(
        "l4",
        """
        g6.xlarge 1 4 16
        g6.2xlarge 1 8 32
        g6.4xlarge 1 16 64
        g6.8xlarge 1 32 128
        g6.12xlarge 4 48 192
        g6.16xlarge 1 64 256
        g6.24xlarge 4 96 384
        g6.48xlarge 8 192 768
        g2-standard-4 1 4 16
        g2-standard-8 1 8 32
        g2-standard-12 1 12 48
        g2-standard-24 2 24 96
        g2-standard-48 4 48 192
        """,
    )
    | _machines("t4", "g4dn.xlarge 1 4 16\ng4dn.2xlarge 1 8 32\ng4dn.12xlarge 4 48 192\nStandard_NC4as_T4_v3 1 4 28")
    | _machines(
        "",
        """
        m6i.large 0 2 8
        m6i.xlarge 0 4 16
        m6i.2xlarge 0 8 32
        m6i.4xlarge 0 16 64
        m7i.large 0 2 8
        m7i.xlarge 0 4 16
        m7i.2xlarge 0 8 32
        m7i.4xlarge 0 16 64
        c6i.2xlarge 0 8 16
        c7i.2xlarge 0 8 16
        t3.medium 0 2 4
        t3.large 0 2 8
        e2-standard-4 0 4 16
        e2-standard-8 0 8 32
        n2-standard-4 0 4 16
        n2-standard-8 0 8 32
        n2-standard-16 0 16 64
        Standard_D2s_v5 0 2 8
        Standard_D4s_v5 0 4 16
        Standard_D8s_v5 0 8 32
        Standard_D16s_v5 0 16 64
        """,
    )
)

_GPU_FAMILY: Final = re.compile(r"(p\d|g\d|gr\d)[a-z0-9-]*\.|(a[2-4]|g[24])-|Standard_N[CDGV]", re.IGNORECASE)
"""How the names of GPU machines begin: EC2's P and G families, Google's A and G, Azure's N. Graviton's are not among
them: their g follows a digit (m6g)."""


def machine(name: str) -> Machine:
    known = MACHINES.get(name)
    if known is None:
        raise UnknownMachine("the machine type is not known", got=name, expected="one of infra/machines.py")
    return known


def gpus(name: str) -> int:
    """GPUs of one machine; UnknownMachine where the name says that it has some, but not how many."""
    known = MACHINES.get(name)
    if known is not None:
        return known.gpus
    if _GPU_FAMILY.match(name):
        raise UnknownMachine("the GPUs of a machine type are not known", got=name, expected="one of infra/machines.py")
    return 0
