"""What has to run, in which order, and when each run begins and ends on one node."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from resim_bench import experiments


class Job(NamedTuple):
    """One pre-training, or one transfer, of a backbone where a row names it."""

    room: str
    id: str
    seed: int
    backbone: str | None = None

    def __str__(self) -> str:
        of = f" of {self.backbone}" if self.backbone else ""
        return f"{self.room} {self.id}{of}, seed {self.seed}"


class Slot(NamedTuple):
    """When a job runs, in seconds from the first one's start, and on how many GPUs."""

    job: Job
    start: float
    end: float
    gpus: int


def jobs(ids: Iterable[str], trials: int = 1) -> list[Job]:
    """What the ids stand for, each job once, and each transfer somewhere behind its pre-training.

    A table is its rows: a recipe, once, and then the row's transfer, `trials` times; probes and readings take minutes
    and are left out. A table whose id a protocol has, too, is named `table:coco-1x`.

    Raises:
        UserError: an id that there is not.
    """
    recipes, protocols, tables = experiments.pretrain_ids(), experiments.transfer_ids(), experiments.reported_tables()
    named = {f"table:{i}" if i in protocols else i: experiments.of_table(i) for i in tables}
    found: list[Job] = []
    for asked in ids:
        chosen = experiments.select_one(asked, [*recipes, *protocols, *named])
        if chosen in recipes:
            found += [Job("pretrain", chosen, seed) for seed in range(trials)]
        elif chosen in protocols:
            found += [Job("transfer", chosen, seed) for seed in range(trials)]
        else:
            for pair in named[chosen]:
                found += [Job("pretrain", pair.pretrain_id, 0)] if pair.pretrain_id in recipes else []
                if experiments.command_of(pair.transfer_id) == "transfer":
                    found += [Job("transfer", pair.transfer_id, seed, pair.pretrain_id) for seed in range(trials)]
    return list(dict.fromkeys(found))


def place(jobs: Iterable[Job], gpus: int, seconds: Callable[[Job], float], width: Callable[[Job], int]) -> list[Slot]:
    """When each job runs, in their order: as soon as its backbone is there and as many GPUs are free as it takes.

    Args:
        jobs: a transfer behind its pre-training.
        gpus: of the node.
        seconds: that a job takes.
        width: how many GPUs it takes, at most `gpus`.
    """
    free = [0.0] * gpus  # since when each GPU is
    slots: dict[Job, Slot] = {}
    for job in jobs:
        taken = sorted(range(gpus), key=free.__getitem__)[: width(job)]
        needs = slots.get(Job("pretrain", job.backbone, 0)) if job.backbone else None
        start = max(free[taken[-1]], needs.end if needs else 0.0)
        slots[job] = Slot(job, start, start + seconds(job), len(taken))
        for gpu in taken:
            free[gpu] = slots[job].end
    return list(slots.values())


def lines(slots: list[Slot], gpus: int) -> list[str]:
    """A line a slot, under one that says what they are."""
    widest = "all of them" if all(slot.gpus == gpus for slot in slots) else "as many as divide its batch"
    made_for = ", as recipes and protocols were made for 8" if gpus == 8 else ""
    title = f"Schedule of one node: {gpus} GPUs, each run on {widest}{made_for}, from start to end."
    rows = [(clock(slot.start), clock(slot.end), f"{slot.gpus} GPUs", str(slot.job)) for slot in slots]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [title, *(f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {job}" for a, b, c, job in rows)]


def clock(seconds: float) -> str:
    """Days, hours and minutes: `3:07`, `2 d 03:07`."""
    minutes = round(seconds / 60)
    days, (hours, rest) = minutes // 1440, divmod(minutes % 1440, 60)
    return f"{days} d {hours:02}:{rest:02}" if days else f"{hours}:{rest:02}"
