import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the processes that tests start

# On processors without AVX-512, the oneDNN of torch 2.15 writes beyond its buffers in the backward pass of some
# convolutions of a few channels (seen on Zen 1 with every version of this project): "corrupted double-linked list".
_cpuinfo = Path("/proc/cpuinfo")
if _cpuinfo.exists() and "avx512f" not in _cpuinfo.read_text():
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "SSE41")
