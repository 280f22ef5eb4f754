"""The training loop: plain PyTorch, one process or many behind torchrun."""

import logging
import math
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from metseg.errors import UsageError
from metseg.predict.device import Device
from training.data.batches import Batch, CropDataset, Schedule, batch_loader
from training.errors import DivergenceError, InterruptedRunError
from training.losses import Counts, build_objective, count_terms
from training.network import TrainingNetwork
from training.ranks import Ranks
from training.recipe import Recipe
from training.runs.checkpoint import Progress, load_checkpoint, save_checkpoint
from training.runs.files import BEST, LAST
from training.runs.recipes import SAME_RECIPE_HINT, identify_recipe
from training.train.cpu_layers import arrange_for_cpu
from training.train.initial_weights import begin_with, read_initial_weights
from training.train.monitor import Monitor
from training.train.optimizers import build_optimizer, learning_rate
from training.train.validation import ValidationResult, ValidationTotals, figure_names, score_entry

logger = logging.getLogger(__name__)

ROUNDING = 1e-9
"""Of a share of the run."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is carried out; none of it is science, but `max_hours` under a cosine schedule and `init`.

    Attributes:
        folder: of the run.
        device: see `metseg.predict.device`.
        init: checkpoint whose weights the run begins with; None for random ones.
        max_hours: the run ends after so long, all its sessions together.
        max_steps: or after so many steps.
        checkpoint_s: seconds between checkpoints.
        workers: loader processes.
        micro_batch: crops that go through the network at once; gradients add up to the same.
        log_every: steps.
    """

    folder: Path
    device: Device
    init: Path | None = None
    max_hours: float | None = None
    max_steps: int | None = None
    checkpoint_s: float = 120.0
    workers: int = 1
    micro_batch: int = 1
    log_every: int = 10


class Trainer:
    """One run, from its checkpoint or from the start, to its end.

    Args:
        recipe: all its science.
        entries: cache entry of every training and validation case.
        train: IDs of the training cases.
        validation: IDs of the validation cases; may be empty.
        settings: how.
        ranks: this process among the run's.
    """

    def __init__(
        self,
        recipe: Recipe,
        entries: Mapping[str, Path],
        train: Sequence[str],
        validation: Sequence[str],
        *,
        settings: RunSettings,
        ranks: Ranks,
        false_positives: Mapping[str, NDArray[np.int32]] | None = None,
    ) -> None:
        self.recipe, self.settings, self.ranks = recipe, settings, ranks
        self.device = torch.device(settings.device.name)
        visits = [case_id for case_id in train for _ in range(recipe.data.count_visits(case_id))]
        self.schedule = Schedule(visits, recipe.batch_cases, recipe.seed)
        self.dataset = CropDataset({case_id: entries[case_id] for case_id in train}, recipe, false_positives)
        self.validation_entries = [entries[case_id] for case_id in validation[: recipe.validation.max_cases]]
        self.total_steps = recipe.epochs * self.schedule.steps_per_epoch
        self.objective = build_objective(recipe.loss, recipe.regions.names)
        torch.manual_seed(recipe.seed)
        self.network = TrainingNetwork(recipe).to(self.device)
        if self.device.type == "cpu":
            arrange_for_cpu(self.network)
        if settings.init is not None:
            begin_with(self.network, recipe, read_initial_weights(settings.init))
        self.average: dict[str, Tensor] | None = None
        if recipe.optimizer.ema_decay is not None:
            self.average = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.optimizer = build_optimizer(self.network, recipe.optimizer)
        self.progress = Progress(recipe_sha256=identify_recipe(recipe, settings.folder))
        self._resume()
        self.parallel: nn.Module = self.network if ranks.world == 1 else DistributedDataParallel(self.network)
        self._stop_signal: int | None = None

    def _resume(self) -> None:
        path = self.settings.folder / LAST
        if not path.exists():
            return
        progress = load_checkpoint(path, self.network, self.average, self.optimizer)
        if progress.recipe_sha256 != self.progress.recipe_sha256:
            raise UsageError(
                f"run {self.settings.folder}: was begun with another recipe ({progress.recipe_sha256[:12]}, "
                f"now {self.progress.recipe_sha256[:12]})",
                hint=SAME_RECIPE_HINT,
            )
        self.progress = progress
        logger.info("continues at step %d of %d", progress.step, self.total_steps)

    def run(self) -> Progress:
        """Trains to the end.

        Raises:
            DivergenceError: the loss is not finite.
            InterruptedRunError: SIGTERM came; the checkpoint is written.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            with Monitor(self.settings.folder, active=self.ranks.is_first, first_step=self.progress.step) as monitor:
                self._loop(monitor)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return self.progress

    def _on_signal(self, number: int, _frame: object) -> None:
        self._stop_signal = number

    def _loop(self, monitor: Monitor) -> None:
        if self.progress.step == 0 and self.validation_entries:
            # One case before step 1: a run that can't validate fails now.
            self._validate(self.validation_entries[: self.ranks.world])
        loader = batch_loader(
            self.dataset,
            self.schedule,
            first_step=self.progress.step,
            total_steps=self.total_steps,
            rank=self.ranks.rank,
            world=self.ranks.world,
            workers=self.settings.workers,
        )
        batches = iter(loader)
        last_checkpoint = clock = time.monotonic()
        while True:
            share_done = self._share_done()
            if self._validation_is_due(share_done):
                self._validate_and_keep(monitor, share_done)
                clock = self._add_time(clock)
            if share_done >= 1:
                break
            before = time.monotonic()
            batch = next(batches)
            waited_s = time.monotonic() - before
            rate = learning_rate(self.recipe.optimizer, self.progress.step, share_done, epochs=self.recipe.epochs)
            terms, norm = self._step(batch, rate)
            now = time.monotonic()
            step = self.progress.step + 1
            self.progress = replace(self.progress, step=step, elapsed_s=self.progress.elapsed_s + now - clock)
            figures = dict(zip(self.objective.names, terms.tolist(), strict=True))
            figures |= {"gradient_norm": norm, "learning_rate": rate, "step_s": now - clock, "waited_s": waited_s}
            monitor.write("train", step, figures, share_done)
            if self.ranks.is_first and step % self.settings.log_every == 0:
                logger.info("step %d/%d loss %.4f %.2f s/step", step, self.total_steps, figures["loss"], now - clock)
            clock = now
            if self._must_stop():
                self._save(LAST)
                raise self._interruption()
            if now - last_checkpoint > self.settings.checkpoint_s:
                self._save(LAST)
                last_checkpoint = time.monotonic()
        self._save(LAST)

    def _must_stop(self) -> bool:
        """Whether a signal came, on any rank; every rank asks at the same time."""
        return self.ranks.any(self._stop_signal is not None, self.device)

    def _interruption(self) -> InterruptedRunError:
        return InterruptedRunError(
            f"stopped by a signal after step {self.progress.step}", hint="The same command continues the run."
        )

    def _add_time(self, since: float) -> float:
        """Counts what a validation took."""
        now = time.monotonic()
        self.progress = replace(self.progress, elapsed_s=self.progress.elapsed_s + now - since)
        return now

    def _limit(self) -> int:
        return min(self.total_steps, self.settings.max_steps or self.total_steps)

    def _share_done(self) -> float:
        """Of the run, by steps or by the clock, whichever is further; the same number on every rank."""
        return self._share_at(self.progress.step, self.progress.elapsed_s)

    def _share_at(self, step: int, elapsed_s: float) -> float:
        by_steps = step / self._limit()
        hours = self.settings.max_hours
        if not hours:
            return by_steps
        by_clock = self.ranks.mean(elapsed_s / 3600 / hours, self.device)
        return max(by_steps, by_clock)

    def _step(self, batch: Batch, rate: float) -> tuple[Tensor, float]:
        """One optimiser step; returns the loss terms summed over ranks, and the gradient's norm."""
        images = batch.images.to(self.device, non_blocking=True)
        components = batch.components.to(self.device, non_blocking=True)
        weights, noise = batch.weights.to(self.device), batch.noise.to(self.device)
        counts = count_terms(components, weights).over(self.ranks)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.parallel.train()
        parts = [
            slice(first, first + self.settings.micro_batch)
            for first in range(0, len(images), self.settings.micro_batch)
        ]
        total = torch.zeros(len(self.objective.names), dtype=torch.float64, device=self.device)
        for number, part in enumerate(parts):
            piece = Batch(images[part], components[part], weights[part], noise[part], batch.case_ids[part])
            total += self._backward(piece, counts, is_last=number == len(parts) - 1)
        total = self.ranks.sum(total)
        self._require_finite("loss", total)
        clip = self.recipe.optimizer.clip_norm
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip if clip > 0 else math.inf)
        self._require_finite("gradient's norm", norm)
        self.optimizer.step()
        self._update_average()
        return total, float(norm)

    def _require_finite(self, what: str, figures: Tensor) -> None:
        """Raises DivergenceError, the same on every rank, before the weights are touched."""
        if bool(torch.isfinite(figures).all()):
            return
        slots = (self.schedule.slots(self.progress.step, rank, self.ranks.world) for rank in range(self.ranks.world))
        case_ids = sorted({slot.case_id for part in slots for slot in part})
        values = ", ".join(f"{value:g}" for value in figures.reshape(-1).tolist())
        raise DivergenceError(
            f"step {self.progress.step + 1}: the {what} is not finite ({values}); cases: {', '.join(case_ids)}",
            hint="Look at these cases' images; lower the learning rate or clip_norm. The last checkpoint is whole.",
        )

    def _backward(self, batch: Batch, counts: Counts, *, is_last: bool) -> Tensor:
        device = self.settings.device
        images = batch.images
        if self.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last_3d)
        if isinstance(self.parallel, DistributedDataParallel):
            self.parallel.require_backward_grad_sync = is_last
        with torch.autocast(self.device.type, dtype=device.dtype, enabled=device.precision != "float32"):
            outputs = self.parallel(images, batch.noise)
        terms = self.objective(outputs, images, batch.components, batch.weights, counts)
        (terms.total * self.ranks.world).backward()  # DDP divides the sum of the gradients by the number of ranks
        detached: Tensor = terms.detached()
        return detached

    def _update_average(self) -> None:
        if self.average is None:
            return
        decay = self.recipe.optimizer.ema_decay or 0.0
        # Young averages forget their random start quickly: the usual ramp (1 + t) / (10 + t).
        decay = min(decay, (1 + self.progress.step) / (10 + self.progress.step))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, 1 - decay)
                else:  # batch norm counts its batches
                    self.average[name].copy_(tensor)

    def _validation_is_due(self, share_done: float) -> bool:
        """As the recipe says and at the end; once for each step, also when a resumed run begins there."""
        step, validated = self.progress.step, self.progress.validated_step
        if not self.validation_entries or step in {0, validated}:
            return False
        times = self.recipe.validation.times
        if times is not None:
            before = self._share_at(validated, self.progress.validated_elapsed_s)
            return share_done >= 1 or int(share_done * times + ROUNDING) > int(before * times + ROUNDING)
        return step % (self.recipe.validation.every_epochs * self.schedule.steps_per_epoch) == 0 or share_done >= 1

    def _validate(self, entries: Sequence[Path]) -> ValidationResult:
        """Scores every n-th case on each of n ranks.

        Raises:
            InterruptedRunError: a signal came; the last checkpoint stands, and the resumed run validates first.
        """
        own = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        if self.average is not None:
            self.network.load_state_dict(self.average)
        self.network.eval()
        totals = ValidationTotals(figures=(0.0,) * len(figure_names(self.recipe)))
        try:
            for entry in entries[self.ranks.rank :: self.ranks.world]:
                if self._stop_signal is None:
                    totals += score_entry(_LogitsOnly(self.network), entry, self.recipe, self.settings.device)
        finally:
            self.network.load_state_dict(own)
            self.network.train()
        totals = ValidationTotals.unpacked(self.ranks.sum(totals.packed().to(self.device)))
        if self._must_stop():
            raise self._interruption()
        return totals.means()

    def _validate_and_keep(self, monitor: Monitor, share_done: float) -> None:
        self._save(LAST)
        result = self._validate(self.validation_entries)
        step, best = self.progress.step, self.progress.best_score
        self.progress = replace(self.progress, validated_step=step, validated_elapsed_s=self.progress.elapsed_s)
        figures = {"score": result.score, **dict(zip(figure_names(self.recipe), result.figures, strict=True))}
        monitor.write("validation", step, figures, share_done)
        logger.info("step %d validation %s", step, {name: round(value, 3) for name, value in figures.items()})
        if best is None or result.score > best:
            self.progress = replace(self.progress, best_score=result.score)
            self._save(BEST)
        self._save(LAST)

    def _save(self, name: str) -> None:
        if self.ranks.is_first:
            save_checkpoint(self.settings.folder / name, self.network, self.average, self.optimizer, self.progress)


class _LogitsOnly(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images).logits
        return logits
