"""Ask every rule about a subject."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from qatexplorer.checks.records import Finding, Findings, Skipped, worst_first
from qatexplorer.checks.rules import RULES, Rule
from qatexplorer.checks.subject import NoEvidence, Subject
from qatexplorer.errors import StoppedError

Report = Callable[[str, float], object]
"""Called with what is being done and the share of the rules asked before it, 0 to 1."""


def check(
    subject: Subject, *, rules: Iterable[Rule] | None = None, strict: bool = False,
    progress: Report | None = None,
) -> Findings:  # fmt: skip
    """The findings of ``rules`` (None: all) in ``subject``, the worst first.

    Rules that are about other kinds of flow are left out. A rule whose evidence cannot be had is
    skipped, and says why; so is one that fails, unless ``strict``. Raises StoppedError if the
    subject's ``should_stop()`` says so.
    """
    every = RULES.values() if rules is None else rules
    asked = [one for one in every if one.ask is not None and one.is_about(subject.flow)]
    found: list[Finding] = []
    skipped: list[Skipped] = []
    done: list[str] = []
    share = 0.0
    if progress is not None:
        report = progress
        subject.report = lambda what: report(what, share)
    for index, one in enumerate(asked):
        subject.stop_if_asked()
        share = index / len(asked)
        try:
            found += _answers(one, subject)
            done.append(one.id)
        except StoppedError:
            raise
        except NoEvidence as error:
            skipped.append(Skipped(one.id, one.name, str(error)))
        except Exception as error:
            if strict:
                raise
            text = f"the rule itself failed: {type(error).__name__}: {error}"
            skipped.append(Skipped(one.id, one.name, text))
    name = type(subject.base).__name__
    return Findings(worst_first(found), (), tuple(done), tuple(skipped), name)


def _answers(one: Rule, subject: Subject) -> Iterator[Finding]:
    assert one.ask is not None
    for found in one.ask(subject):
        yield one.finding(found, subject.stage_of(one.role))
