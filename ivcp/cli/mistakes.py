"""A user's mistakes as one sentence each; everything else is a defect and keeps its traceback."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf import errors

import ivcp
from ivcp.core.errors import MissingSignalError, UserError, did_you_mean

NO_FOLDER = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ENOSPC,
}  # fmt: skip
UNKNOWN_ARGUMENT = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
MISSING = re.compile(r"Could not find '([\w/]+)/([^/']+)' Available options in '[\w/]+': (.*)")
TARGET = re.compile(r"Error locating target '([^']*)'")


def explain(error: Exception) -> str:
    """Print a user's mistake as one sentence and return it; a defect is raised again."""
    if (sentence := sentence_of(error)) is None:
        raise error
    print(sentence, file=sys.stderr)
    return sentence


def sentence_of(error: Exception) -> str | None:
    """What to tell the user; None if the error is no mistake of theirs."""
    cause = error.__cause__ if isinstance(error, InstantiationException) else error
    if isinstance(cause, MissingSignalError):
        from ivcp.cli.catalogue import served

        reason, methods = str(cause).rpartition(";")[0], ", ".join(served(cause.provides))
        return f"{reason}; use pruner={methods} or another model."
    if isinstance(cause, UserError):
        return str(cause)
    if isinstance(error, InstantiationException):
        return _not_instantiated(error)
    if isinstance(error.__cause__, errors.ConfigAttributeError | errors.ConfigKeyError):
        return _unknown_key(error.__cause__)
    if isinstance(error, HydraException | errors.OmegaConfBaseException):
        return _on_one_line(str(error))
    if str(error).startswith("Config group override"):
        return _on_one_line(str(error))  # Hydra raises a ValueError
    if 'Could not detect "srun"' in str(error):
        return (
            "hydra/launcher=slurm needs srun, which is not here: start it on a login node of the "
            "cluster, or use hydra/launcher=submitit_local or hydra/launcher=joblib."
        )
    return None


def unwritable(error: OSError) -> Exception:
    """The mistake of a user whose run could not start, since its folder cannot be made."""
    if isinstance(error, HydraException) or error.errno not in NO_FOLDER or not error.filename:
        return error
    return UserError(
        f"The folder of the run cannot be written ({error.filename}: {error.strerror}); choose "
        "another with hydra.run.dir=, or hydra.sweep.dir= for a sweep."
    )


def check_known(name: str, known: Iterable[object]) -> None:
    """Refuse a setting that nothing reads.

    Raises:
        UserError: It is not among the known ones.
    """
    names = [str(other) for other in known]
    if name not in names:
        hint = did_you_mean(name, names, f"; choose from {', '.join(names)}.")
        raise UserError(f"There is no setting {name!r}{hint}")


def _unknown_key(error: errors.OmegaConfBaseException) -> str:
    """For a setting that does not exist; Hydra would advise to add it."""
    parent, name = error.parent_node, str(error.key)
    keys = [str(key) for key in parent or () if key not in ("_target_", "hydra")]
    of = f" of {parent._get_full_key(None)}" if parent is not None and parent._key() else ""
    hint = did_you_mean(name, keys, f"; choose from {', '.join(keys)}.")
    return f"There is no setting {name!r}{of}{hint}"


def _not_instantiated(error: InstantiationException) -> str | None:
    """For a class that does not exist, or has no such setting."""
    text, key = str(error), str(error).rpartition("full_key: ")[2]
    if match := TARGET.search(text):
        return (
            f"{key}._target_ must name a class that can be imported; got {match[1]}: look for a "
            f"typing error, or choose with {key}=."
        )
    if match := UNKNOWN_ARGUMENT.search(str(error.__cause__)):
        return f"{key} has no setting {match[2]!r} ({match[1]} does not take it)."
    return None


def _on_one_line(text: str) -> str:
    text = text.split("Config search path")[0].split("See https://")[0]
    text = " ".join(text.split())
    if match := MISSING.search(text):
        group, name, options = match.groups()
        names = options.split()
        hint = did_you_mean(name, names, f"; choose from {', '.join(names)}.")
        return f"There is no {group}={name}{hint}"
    return re.sub(r"^In '[\w/]+': ", "", text)


def check_target(name: str, target: str) -> None:
    """Refuse a class of this package that does not exist, without importing its module.

    Args:
        name: The block of the configuration that names it.
        target: Its dotted path.

    Raises:
        UserError: There is no such module, or it does not define the class.
    """
    module, _, member = target.rpartition(".")
    if not module.startswith("ivcp."):
        return  # finding a module of another package may import that package
    path = Path(ivcp.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    members = re.findall(r"^(?:class|def) (\w+)", source, re.MULTILINE)
    if member not in members:
        hint = did_you_mean(member, members, f"; choose with {name}=.")
        raise UserError(f"{name}._target_ must name a class that exists; got {target}{hint}")
