"""The GPU."""

from __future__ import annotations

from limpet.runtime.diagnosis.finding import Finding
from limpet.runtime.diagnosis.jetson import is_jetson
from limpet.runtime.diagnosis.probe import Probe


def look_at_gpu(probe: Probe) -> Finding:
    """Asked of the driver itself; `nvidia-smi` adds name, driver and memory."""
    capability, cuda = probe.capability(), probe.cuda()
    about = [f"compute capability {capability}"] if capability else []
    about += [f"driver for CUDA {cuda[0]}.{cuda[1]}"] if cuda else []
    if is_jetson(probe):
        if capability is None:
            found = "a Jetson's, but CUDA's driver does not find it"
            mend = "in a container, start it with --runtime nvidia; else look at dmesg"
            return Finding("machine", "gpu", "warning", found, mend)
        return Finding("machine", "gpu", "ok", ", ".join(["a Jetson's", *about]))
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    names = probe.run(query).splitlines()
    if capability is not None:
        found = "; ".join(names) or "one that nvidia-smi says nothing of"
        return Finding("machine", "gpu", "ok", ", ".join([found, *about]))
    if names or probe.find("/dev/nvidia[0-9]*"):
        found = "; ".join(names) or "a device, but nvidia-smi does not run"
        mend = "install NVIDIA's driver with libcuda.so.1; in a container, start it with --gpus all"
        return Finding("machine", "gpu", "warning", f"{found}; CUDA does not find it", mend)
    return Finding("machine", "gpu", "absent", "none; ONNX Runtime serves on the CPU")
