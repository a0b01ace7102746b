"""What an exception means to a user, and the exit code."""

from __future__ import annotations

import errno
import os
import re

from compressor.errors import CompressorError, InputError, MachineError


def as_known(error: Exception) -> CompressorError | None:
    """The error in this package's words, or None for one that nobody foresaw."""
    from safetensors import SafetensorError

    from exporters.errors import ExportError, ProviderUnavailableError

    match error:
        case CompressorError():
            return error
        case ProviderUnavailableError():
            return MachineError(error.problem, where=error.where, cure=error.cure)
        case ExportError():
            return InputError(error.problem, where=error.where, cure=error.cure)
        case RuntimeError() if _is_loss_of_another(error):
            cure = "see that process's error above; run the same command again to resume"
            return MachineError("another process of this run has ended", cure=cure)
        case RuntimeError() if re.match(r"DataLoader worker .* (exited unexpectedly|is killed by signal)", str(error)):
            cure = "often memory was short: lower data.workers; run the same command again to resume"
            return MachineError("a process that reads the data has died", where="data.workers", cure=cure)
        case SafetensorError() if code := re.search(r"os error (\d+)", str(error)):
            return as_known(OSError(int(code[1]), os.strerror(int(code[1]))))
        case OSError(errno=errno.EFBIG):
            cure = "raise the limit (ulimit -f), then run the same command again"
            return MachineError("a file grew larger than files may be here", where=error.filename, cure=cure)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return MachineError(
                "no space is left", where=error.filename, cure="free some, then run the same command again"
            )
        case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS | errno.EISDIR | errno.ENOTDIR | errno.EEXIST):
            cure = "choose another path, or correct its permissions"
            return InputError(f"cannot be read or written ({error.strerror})", where=error.filename, cure=cure)
    return None


def _is_loss_of_another(error: RuntimeError) -> bool:
    from compressor.support.distributed import is_loss_of_another

    return is_loss_of_another(error)
