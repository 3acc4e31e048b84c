"""``%load_ext qatexplorer`` and the line magic ``%qat``: the explorer on a model in one line."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_magic, magics_class, no_var_expand

from qatexplorer.errors import InputError, QatExplorerError

if TYPE_CHECKING:
    from qatexplorer.widgets.explorer.explorer import Explorer

EXPRESSIONS = ("inputs", "data", "loss", "metric", "qconfig")
"""Options whose value is Python of the notebook; ``qconfig`` takes a backend's name too."""

NAMES = ("flow", "stubs", "engine", "example")
"""Options whose value is a word."""

MATCHER = "qatexplorer.qat"
_HEAD = re.compile(r"^\s*(?:\w+\s*=\s*)?%qat\s")
_OPTION = re.compile(r"(?:^|(?<=\s))--?([a-z_]+)(?:=|\s+|$)")
_OPENING, _CLOSING = "([{", ")]}"


@magics_class
class QatMagics(Magics):
    """The magics of this package."""

    @no_var_expand
    @line_magic
    def qat(self, line: str) -> Explorer:
        """Open the explorer on a model: ``%qat [model] [--option value …]``.

            %qat model --data loader                  the first batch gives the example inputs
            %qat model --inputs torch.randn(1, 3, 224, 224) --flow fx
            %qat --example digits_cnn                 an embedded example
            explorer = %qat model --data loader       to go on with it in Python

        model is a name or any expression of this notebook without " --" in it: a float
        torch.nn.Module or a qatexplorer Session. Your model is copied, never changed.

        Python of this notebook, as it stands there, without quotes around it:
            --inputs    example inputs of one forward: tensor, tuple or dict
            --data      a (training, evaluation) pair of loaders, an object with .train and .eval,
                        or one DataLoader: then accuracy is measured on what it trains on
            --loss      (output, target) -> scalar; default cross entropy
            --metric    (output, target) -> float; default top-1 accuracy
            --qconfig   a backend's name (x86, fbgemm, onednn, qnnpack) or any qconfig
        Words:
            --flow      eager or fx
            --stubs     none, model or layers: QuantStubs for eager models without
            --engine    the quantized engine of the int8 model
            --example   an embedded example instead of a model

        Tab completes the modules, loaders and tensors of this notebook, and the options' words.
        What is wrong is said in a sentence and raises IPython's UsageError.
        """
        from qatexplorer.widgets.explorer.explorer import Explorer

        try:
            model, options = parse(line)
            given = {name: self._value(name, text) for name, text in options.items()}
            if model and "example" in given:
                raise InputError(
                    f"{model} and --example are two models.", fix="Name one of the two."
                )
            if not model and given.keys() & {"inputs", "data", "loss", "metric"}:
                raise InputError(
                    "there is no model before the options.", fix="Write %qat model --data …"
                )
            inputs = given.pop("inputs", None)
            value = self._evaluated(model, "model") if model else None
            return Explorer(value, inputs, **given)
        except QatExplorerError as error:
            _refuse(error)

    def _value(self, name: str, text: str) -> Any:
        if not text:
            raise InputError(f"--{name} has no value.", fix=f"Write it after --{name}.")
        if name in NAMES:
            return text.strip("\"'")
        if name == "qconfig" and text.isidentifier() and text not in self._shell().user_ns:
            return text
        value = self._evaluated(text, f"--{name}")
        return (value, value) if name == "data" and _is_one_loader(value) else value

    def _shell(self) -> Any:
        return self.shell

    def _evaluated(self, text: str, what: str) -> Any:
        shell = self._shell()
        try:
            return shell.ev(text)
        except NameError as error:
            near = difflib.get_close_matches(str(error.name), list(shell.user_ns), n=3)
            models = list(names_of(shell.user_ns, is_model))
            hint = f"Did you mean {' or '.join(near)}? " if near else ""
            if what == "model" and models and not near:
                hint = f"Models in this notebook: {', '.join(models[:8])}. "
            raise InputError(
                f"there is no {error.name!r} in this notebook.",
                fix=f"{hint}Run the cell that makes it first.",
            ) from None
        except SyntaxError as error:
            raise InputError(
                f"{text!r} is not Python: {error.msg}.", fix="`%qat?` has examples."
            ) from None
        except Exception as error:
            raise InputError(
                f"{what} {text!r} raised {type(error).__name__}: {error}.",
                fix="Run it in a cell of its own and look at its traceback.",
            ) from None


def _refuse(error: QatExplorerError) -> NoReturn:
    """As IPython's own error for a magic that was called wrong: a cell fails without traceback."""
    raise UsageError(f"%qat: {error.full_text()}") from None


def parse(line: str) -> tuple[str, dict[str, str]]:
    """The model's expression and the options' texts, as they stand in ``line``.

    Raises InputError for an option that does not exist or is given twice.
    """
    known = (*EXPRESSIONS, *NAMES)
    found = list(_options(line))
    model = line[: found[0].start()] if found else line
    options: dict[str, str] = {}
    for index, option in enumerate(found):
        name = option[1]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean --{near[0]}? " if near else ""
            fix = f"{hint}The options are {', '.join(f'--{k}' for k in known)}."
            raise InputError(f"there is no option {option[0].strip()}.", fix=fix)
        if name in options:
            raise InputError(f"--{name} is given twice.", fix="Leave one of them out.")
        end = found[index + 1].start() if index + 1 < len(found) else len(line)
        options[name] = line[option.end() : end].strip()
    return model.strip(), options


def _options(line: str) -> Iterator[re.Match[str]]:
    """Where options begin: not inside brackets or quotes."""
    depth, quote = 0, ""
    outside = [True] * len(line)
    for at, char in enumerate(line):
        outside[at] = not depth and not quote
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth = max(0, depth - 1)
    # "- x" and "-x" belong to an expression; an option has two dashes.
    return (m for m in _OPTION.finditer(line) if outside[m.start()] and m[0].startswith("--"))


# -- completion ------------------------------------------------------------------------------------


def _is_of(value: Any, *classes: str) -> bool:
    """Whether ``value`` is of a class named "module:Class". A module that is not loaded has no
    objects, and loading it would take longer than an editor waits for completions."""
    for name in classes:
        module, _, attribute = name.partition(":")
        known = getattr(sys.modules.get(module), attribute, None)
        if known is not None and isinstance(value, known):
            return True
    return False


def is_model(value: Any) -> bool:
    """Whether ``%qat`` can open ``value``."""
    return _is_of(value, "torch.nn:Module", "qatexplorer.session.session:Session")


def is_loader(value: Any) -> bool:
    """Whether ``value`` may be training data: it gives batches, or is a list or pair of them."""
    if isinstance(value, (list, tuple)) and value:
        return not _is_of(value[0], "torch:Tensor") and not isinstance(value[0], (str, int, float))
    return _is_of(value, "torch.utils.data:DataLoader", "qatexplorer.data:Data")


def is_input(value: Any) -> bool:
    """Whether ``value`` may be inputs of a forward: a tensor, or tensors in a tuple or dict."""
    if not isinstance(value, (tuple, dict)):
        return _is_of(value, "torch:Tensor")
    inner = list(value.values() if isinstance(value, dict) else value)
    return bool(inner) and all(_is_of(v, "torch:Tensor") for v in inner)


def _is_one_loader(value: Any) -> bool:
    return _is_of(value, "torch.utils.data:DataLoader")


def names_of(namespace: dict[str, Any], fits: Callable[[Any], bool]) -> Iterator[str]:
    """Names of the user's whose values fit, in the order they were made."""
    for name, value in list(namespace.items()):
        if not name.startswith("_") and name not in ("In", "Out"):
            with suppress(Exception):  # a user's object may raise at anything
                if fits(value):
                    yield name


def complete(namespace: dict[str, Any], line: str, start: str) -> list[str]:
    """What may stand at the cursor, at the end of ``line``, which ``start`` has been typed of; none
    where the line is not of ``%qat`` or IPython's own completion is the better one."""
    head = _HEAD.match(line)
    if head is None:
        return []
    words = line[head.end() :]
    before = words[: len(words) - len(start)] if start and words.endswith(start) else words
    given = [found[1] for found in _options(before)]
    options = [f"--{n}" for n in (*EXPRESSIONS, *NAMES) if n not in given]
    last = before.split()[-1] if before.split() else ""
    if start.startswith("-"):
        candidates = options
    elif last.startswith("--"):
        candidates = _values_of(last[2:], namespace)
    elif not before.strip():
        candidates = list(names_of(namespace, is_model))
    else:
        candidates = [] if start else options
    return [name for name in candidates if name.startswith(start)]


def _values_of(option: str, namespace: dict[str, Any]) -> list[str]:
    from qatexplorer import zoo
    from qatexplorer.flows import FLOWS
    from qatexplorer.flows.base import StubMode
    from qatexplorer.quantizers.engine import available_engines

    if option == "data":
        return list(names_of(namespace, is_loader))
    if option == "inputs":
        return list(names_of(namespace, is_input))
    words: dict[str, Callable[[], Any]] = {
        "flow": lambda: FLOWS,
        "stubs": lambda: get_args(StubMode),
        "example": zoo.names,
        "engine": available_engines,
        "qconfig": available_engines,
    }
    return list(words[option]()) if option in words else []


def _matcher(shell: Any) -> Any:
    @context_matcher(identifier=MATCHER)  # type: ignore[untyped-decorator]
    def match(context: Any) -> dict[str, Any]:
        found = complete(shell.user_ns, context.text_until_cursor, context.token)
        # Only these: Jedi would offer Python's input() beside --inputs.
        return {"completions": list(map(SimpleCompletion, found)), "suppress": bool(found)}

    return match


def load(shell: Any) -> None:
    """Register ``%qat`` and its completion in an ``InteractiveShell``."""
    unload(shell)
    shell.register_magics(QatMagics(shell))
    shell.Completer.custom_matchers.append(_matcher(shell))


def unload(shell: Any) -> None:
    """Take ``%qat`` away again."""
    shell.magics_manager.magics["line"].pop("qat", None)
    matchers = shell.Completer.custom_matchers
    matchers[:] = [m for m in matchers if getattr(m, "matcher_identifier", "") != MATCHER]
