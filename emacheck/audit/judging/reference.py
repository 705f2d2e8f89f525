"""Everything about one batch that does not depend on the candidate: what the arbiter says and what is accepted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch

from emacheck.audit.arithmetic.measure import Distance, Truth
from emacheck.audit.arithmetic.precision import Precision
from emacheck.audit.findings.result import ITERATION
from emacheck.audit.iteration.calls import LOSS, Call
from emacheck.audit.iteration.capture import Capture, capture
from emacheck.audit.iteration.draws import Draws
from emacheck.audit.iteration.repeats import Repeats
from emacheck.audit.iteration.subject import Candidate, Subject, copied, to_accuracy
from emacheck.audit.iteration.ties import break_ties
from emacheck.audit.judging.invariants import DEFAULT, Invariant, first_complaint
from emacheck.audit.limits import OPERATOR, OPERATOR_HALF, Limits
from emacheck.audit.lockstep.end_to_end import Conditions, Found, Owner, distances, iterated
from emacheck.audit.lockstep.isolated import Baseline, baselines
from emacheck.audit.lockstep.optimizer import stepped
from emacheck.audit.lockstep.side import Side
from emacheck.audit.lockstep.variations import OTHER_ORDER, PLAIN, Variation, moves
from emacheck.counted import the_first

# Ways in which the accepted precision may compute one module, and a whole iteration.
ISOLATED = (PLAIN, OTHER_ORDER)
# In 16 bits a module that rounds several times in a row, such as the EMA module, passes each error on.
ISOLATED_HALF = (*ISOLATED, Variation(rounding=1), Variation(rounding=2))
# The last one is large enough to flip some ReLU masks for certain, so that the tail of flips is in the pool.
WHOLE = (
    PLAIN,
    OTHER_ORDER,
    Variation(onednn=False),
    Variation(last_bit=1),
    Variation(last_bit=2, ulps=16, channels_last=True),
)
# In 16 bits no last bit of a weight flips anything, it is rounded away; other roundings do.
WHOLE_HALF = (
    PLAIN,
    OTHER_ORDER,
    Variation(last_bit=1, rounding=1),
    Variation(last_bit=2, ulps=16, channels_last=True, rounding=2),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to audit.

    Attributes:
        device: Where the candidate runs.
        precision: The accepted precision.
        limits: The limits.
        seed: Seed of all random draws.
        modules: Glob over module names; only those are run in isolation. None for all.
        names: Of these, only those with such a name. None for all.
        evaluation: Audit the evaluation-mode forward pass as well, on the first batch.
        end_to_end: Run whole iterations as well.
        invariants: What must hold after a whole iteration.
        cpu_fallback: Run on the CPU what the device lacks.
        draws: How random numbers are drawn in whole iterations.
    """

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant
    precision: Precision = Precision()  # noqa: RUF009 - frozen
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    seed: int = 0
    modules: str | None = None
    names: frozenset[str] | None = None
    evaluation: bool = True
    end_to_end: bool = True
    invariants: tuple[Invariant, ...] = DEFAULT
    cpu_fallback: bool = False
    draws: type[Draws] = Draws

    @property
    def limit_alone(self) -> float:
        """The limit of a module that runs alone."""
        return self.limits.half if self.precision.half else self.limits.isolated

    @property
    def limit_of_operators(self) -> float:
        """The limit of one call of an operator."""
        return OPERATOR_HALF if self.precision.half else OPERATOR

    def wants(self, module: str) -> bool:
        """Return whether a module is to run alone."""
        named = self.names is None or module in self.names
        return named and (self.modules is None or fnmatchcase(module, self.modules))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """What an optimizer's step, or a whole iteration, should give.

    Attributes:
        truth: The arbiter's tensors.
        accepted: Distances of the accepted precision, one mapping for each variation.
    """

    truth: dict[Owner, Truth]
    accepted: tuple[Mapping[Owner, Distance], ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Reference:
    """The reference and the arbiter on one batch.

    Attributes:
        subject: What is audited.
        batch: The batch.
        plan: How.
        number: Number of the batch, 1-based.
        keep: Keep everything for further candidates, instead of one thing after the other for one candidate.
        notes: What limits what the outcome rests on.
        repeats: What activation checkpointing repeated in the reference's whole iteration.
        refused: For what cannot run in a benign variation, why; the variation was left out there.
        broken: What does not hold after the reference's own whole iteration, empty if all does.
    """

    subject: Subject
    batch: Any
    plan: Plan
    number: int = 1
    keep: bool = False
    notes: list[str] = field(default_factory=list)
    repeats: Repeats = field(default_factory=lambda: Repeats(names=()))
    refused: dict[str, str] = field(default_factory=dict)
    broken: str = ""
    _kept: dict[str, Any] = field(default_factory=dict)

    def captured(self, *, evaluation: bool = False) -> Capture:
        """Run the reference's iteration and record every call."""
        model = copied(self.subject.model)
        if evaluation:
            model.eval()
        plan = self.plan
        return capture(
            model, self.batch, self.subject.loss, precision=plan.precision, seed=plan.seed, backward=not evaluation
        )

    @property
    def capture(self) -> Capture:
        """The reference's training iteration."""
        if "capture" not in self._kept:
            self._kept["capture"] = captured = self.captured()
            if captured.repeated:
                repeated = the_first(sorted(captured.repeated), 1)
                self.notes.append(
                    f"called again in the backward pass, not by torch.utils.checkpoint: {repeated}; "
                    "their backward pass, and that of what called them, ran in whole iterations only"
                )
            inner = list(dict.fromkeys(call.name for call in captured.calls if call.differentiates))
            if inner:
                self.notes.append(
                    f"computes gradients in the forward pass, through modules that it calls: {the_first(inner, 1)}; "
                    "what becomes of them, and the second derivatives of those modules, ran in whole iterations only"
                )
        found: Capture = self._kept["capture"]
        return found

    def isolated(self, *, evaluation: bool = False) -> Iterable[Baseline]:
        """Yield what each call should give when it runs alone."""
        name = f"isolated {evaluation}"
        if name in self._kept:
            kept: list[Baseline] = self._kept[name]
            return kept
        captured = self._captured_evaluation() if evaluation else self.capture
        if captured is None:
            return []
        found: Iterable[Baseline] = self._isolated(captured, evaluation=evaluation)
        if self.keep:
            found = self._kept[name] = list(found)
        return found

    def calls(self, *, evaluation: bool = False) -> Sequence[Call]:
        """Return the calls of the reference's iteration, or of its forward pass in evaluation mode."""
        captured = self._captured_evaluation() if evaluation else self.capture
        return () if captured is None else captured.calls

    def _captured_evaluation(self) -> Capture | None:
        """Run the loss in evaluation mode; some models return no loss in that mode."""
        if "capture of evaluation" in self._kept:
            kept: Capture | None = self._kept["capture of evaluation"]
            return kept
        known = {call.label: call.by_products for call in self.capture.calls}
        try:
            captured = self.captured(evaluation=True)
        except Exception as error:
            self.notes.append(f"evaluation mode was not audited, the reference fails in it: {_said(error)}")
            return None
        for call in captured.calls:
            call.by_products = known.get(call.label, frozenset())
        if self.keep:
            self._kept["capture of evaluation"] = captured
        return captured

    def narrowed(self, names: Iterable[str]) -> "Reference":
        """Return the same reference with what it recorded, which repeats the calls of some modules alone."""
        kept = {name: value for name, value in self._kept.items() if name.startswith("capture")}
        return replace(self, plan=replace(self.plan, names=frozenset(names)), _kept=kept)

    def _isolated(self, captured: Capture, *, evaluation: bool) -> Iterator[Baseline]:
        arbiter, accepted = to_accuracy(copied(self.subject.model), torch.float64), copied(self.subject.model)
        if evaluation:
            arbiter.eval()
            accepted.eval()
        plan, loss = self.plan, self.subject.loss
        modules = dict(self.subject.model.named_modules())
        for call in captured.calls:
            break_ties(call, modules.get(call.name))
        yield from baselines(
            captured.calls,
            Side(model=arbiter, loss=loss, dtype=torch.float64, precision=plan.precision, seed=plan.seed),
            [
                Side(model=accepted, loss=loss, precision=plan.precision, variation=variation, seed=plan.seed)
                for variation in (ISOLATED_HALF if plan.precision.half else ISOLATED)
            ],
            wanted=lambda call: plan.wants(call.name),
            poison=lambda call: self.number == 1 and not evaluation and call.index == 0,
            elsewhere=plan.device.type != "cpu",
            refused=self._refuse,
        )

    def optimizer(self) -> Whole:
        """Return what the optimizer's step should give with the reference's gradients."""
        gradients = self.capture.gradients
        return self._whole("optimizer", lambda candidate, how: stepped(candidate, gradients, how), ISOLATED[:1])

    def iteration(self) -> Whole:
        """Return what the whole iteration should give; later batches run two variations of it."""
        variations: tuple[Variation, ...] = WHOLE_HALF if self.plan.precision.half else WHOLE
        if self.number > 1 and not self.keep:
            variations = (variations[0], variations[-1])
        return self._whole("iteration", self._iterated, variations)

    def moved_losses(self, whole: Whole) -> list[Mapping[Owner, Distance]]:
        """Return how far last bits and roundings move the losses of the whole iteration, one mapping for each move.

        Args:
            whole: What the iteration should give.
        """
        truth = {owner: tensor for owner, tensor in whole.truth.items() if owner[0] == LOSS}
        plan, twin = self.plan, self.subject.twin()
        moved: list[Mapping[Owner, Distance]] = []
        for variation in moves(half=plan.precision.half):
            how = Conditions(precision=plan.precision, seed=plan.seed, draws=plan.draws, variation=variation)
            # What is raised is of the user's code, which need not run in a variation.
            with suppress(Exception), self._iterated(twin, how) as found:
                away = distances({owner: found[owner] for owner in truth}, truth)
                if all(each.finite for each in away.values()):
                    moved.append(away)
        return moved

    @contextmanager
    def _iterated(self, candidate: Candidate, how: Conditions) -> Iterator[Found]:
        captured: Capture | None = self._kept.get("capture")
        if captured is None or how.dtype is not None or how.variation != PLAIN:
            with iterated(candidate, self.batch, how) as found:
                yield found
            return
        self.repeats = Repeats(names=captured.checkpointed)
        with self.repeats.watching(candidate) as watched, iterated(watched, self.batch, how) as found:
            self.broken = first_complaint(self.plan.invariants, candidate.model, self.subject.model)
            yield found

    def _whole(self, name: str, run: Any, variations: tuple[Variation, ...]) -> Whole:
        if name in self._kept:
            kept: Whole = self._kept[name]
            return kept
        plan = self.plan
        common = Conditions(precision=plan.precision, seed=plan.seed, draws=plan.draws)
        arbiter = replace(common, dtype=torch.float64)
        with run(self.subject.twin(), arbiter) as found:
            truth = {owner: Truth(tensor=tensor()) for owner, tensor in found.items()}
        accepted, twin = [], self.subject.twin()
        for at, variation in enumerate(variations):
            for attempt in variation.attempts():
                try:
                    with run(twin, replace(common, variation=attempt)) as found:
                        accepted.append(distances(found, truth))
                    break
                except Exception as error:  # of the user's code, so it can be anything
                    if at == 0:
                        raise
                    self._refuse(ITERATION, attempt, error)
        whole = Whole(truth=truth, accepted=tuple(accepted))
        if self.keep:
            self._kept[name] = whole
        return whole

    def _refuse(self, name: str, variation: Variation, error: Exception) -> None:
        """Remember that something cannot run in a benign variation that is not the plain one."""
        self.refused.setdefault(name, f"{variation}: {_said(error)}")


def _said(error: Exception) -> str:
    """Return the type of an error and the first line of what it says; a bare assertion says nothing."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
